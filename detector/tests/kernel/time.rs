//! Bans end by the kernel's own clock.
use std::time::{Duration, Instant};

use fail2xdp::{
    clock,
    enforce::tables::{Hold, Sizes, Tables, object},
};
use fail2xdp_common::{program, report::ClockSample};
use ipnet::IpNet;

use crate::{
    frame::{BANNED_V4, Frame},
    lab::{Action, Lab},
};

fn sample() -> ClockSample {
    let mut lab = Lab::of(object::plain(), program::SAMPLE_CLOCK, Sizes::for_bans(1024, 1024));
    let out = lab.transform(&[0; 64]);
    let word =
        |nth: usize| u64::from_ne_bytes(out[nth * 8..nth * 8 + 8].try_into().expect("eight bytes"));
    ClockSample { jiffies: word(0), nanoseconds: word(1), ticks: word(2) }
}

/// Ticks a second: jiffies start 300 seconds before they leave 32 bits.
fn ticks_a_second(sample: &ClockSample) -> u64 {
    let off = |hz: &u64| {
        let since_start = sample.jiffies.wrapping_sub((1 << 32) - 300 * hz) as i64;
        (since_start - (u128::from(sample.nanoseconds) * u128::from(*hz) / 1_000_000_000) as i64)
            .unsigned_abs()
    };
    [100, 250, 300, 1000].into_iter().min_by_key(off).expect("four of them")
}

fn wall() -> Duration {
    Duration::from_micros(clock::now().micros().try_into().expect("a clock after 1970"))
}

/// Sets the tables' clock to the wall's; returns the sample it was set by.
fn set_by_wall(tables: &mut Tables) {
    let (sample, now) = (sample(), wall());
    let scale = (1u64 << 32) / ticks_a_second(&sample);
    let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
    let unix = (now.as_secs() << 32) + fraction;
    tables.set_clock(scale, unix.wrapping_sub(sample.ticks.wrapping_mul(scale)));
}

fn ban(tables: &mut Tables, until: u32) {
    let hold = Hold { jail: "sshd".into(), scope: "all".parse().expect("a scope"), until };
    tables.ban(IpNet::from(std::net::IpAddr::from(BANNED_V4)), &hold).expect("room");
}

#[test]
fn a_ban_lapses_in_the_kernel_on_time_with_nobody_to_lift_it() {
    let mut lab = Lab::new(Sizes::for_bans(1024, 1024));
    let mut tables = lab.tables();
    set_by_wall(&mut tables);
    let (packet, _) = Frame::parse("v4 tcp=22").build();
    let until = wall().as_secs() as u32 + 2;
    ban(&mut tables, until);
    drop(tables);
    assert_eq!(lab.run(&packet), Action::Drop);
    let started = Instant::now();
    while lab.run(&packet) == Action::Drop {
        assert!(started.elapsed() < Duration::from_secs(10), "still banned");
        std::thread::sleep(Duration::from_millis(1));
    }
    let late = wall().as_secs_f64() - f64::from(until);
    // A tick of the slowest clock is 10 ms; the rest is this machine's mood.
    assert!((-0.02..0.3).contains(&late), "lapsed {late} s after its end");
}

#[test]
fn an_end_is_judged_by_the_second_whatever_the_offset() {
    let mut lab = Lab::new(Sizes::for_bans(1024, 1024));
    let mut tables = lab.tables();
    let (packet, _) = Frame::parse("v4 tcp=22").build();
    for second in [1u64, 1_800_000_000, u64::from(u32::MAX) - 1] {
        for (fraction, until, action) in [
            (0, second, Action::Pass),
            (0, second + 1, Action::Drop),
            (u64::from(u32::MAX), second, Action::Pass),
            (u64::from(u32::MAX), second + 1, Action::Drop),
            (0, second - 1, Action::Pass),
            (0, u64::from(u32::MAX), Action::Drop),
        ] {
            tables.set_clock(0, second << 32 | fraction);
            ban(&mut tables, until as u32);
            assert_eq!(
                lab.run(&packet),
                action,
                "second {second}, fraction {fraction}, end {until}"
            );
        }
    }
}

#[test]
fn the_clock_steps_by_one_store() {
    let mut lab = Lab::new(Sizes::for_bans(1024, 1024));
    let mut tables = lab.tables();
    let (packet, _) = Frame::parse("v4 tcp=22").build();
    ban(&mut tables, 1_800_000_000);
    for (now, action) in [
        (1_799_999_999u64, Action::Drop),
        (1_800_003_600, Action::Pass),
        (1_799_996_400, Action::Drop),
    ] {
        tables.set_clock(0, now << 32);
        assert_eq!(lab.run(&packet), action, "at {now}");
    }
}
