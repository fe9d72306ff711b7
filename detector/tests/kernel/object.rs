//! The object as it is shipped: its programs load, its maps are the design's.
use std::{path::Path, process::Command};

use fail2xdp::enforce::tables::{Hold, Maps, SHAPES, Sizes, TableError, Tables, object};
use fail2xdp_common::{map, program};
use ipnet::IpNet;

use crate::{
    frame::{BANNED_V4, Frame},
    lab::{Action, Lab},
};

fn small() -> Sizes {
    Sizes::for_bans(1024, 1024)
}

fn hold(jail: &str) -> Hold {
    Hold { jail: jail.into(), scope: "tcp:22".parse().expect("a scope"), until: u32::MAX }
}

fn banned() -> IpNet {
    std::net::IpAddr::from(BANNED_V4).into()
}

#[test]
fn every_program_of_both_objects_loads_and_drops() {
    let (packet, _) = Frame::parse("v4 tcp=22").build();
    for bytes in [object::plain(), object::verbose()] {
        for name in [program::BAN, program::BAN_FRAGS] {
            let mut lab = Lab::of(bytes, name, small());
            let mut tables = lab.tables();
            tables.ban(banned(), &hold("sshd")).expect("room");
            assert_eq!(lab.run(&packet), Action::Drop, "{name}");
        }
    }
}

#[test]
fn a_frame_in_pieces_is_judged_by_its_first_and_counted_whole() {
    let mut lab = Lab::of(object::plain(), program::BAN_FRAGS, small());
    let mut tables = lab.tables();
    tables.ban(banned(), &hold("sshd")).expect("room");
    let (mut packet, _) = Frame::parse("v4 tcp=22").build();
    packet.resize(9000, 0);
    assert_eq!(lab.run(&packet), Action::Drop);
    let counters = tables.counters().expect("counters");
    assert_eq!((counters.dropped.packets, counters.dropped.bytes), (1, 9000));
}

#[test]
fn the_default_object_has_the_sizes_it_says() {
    let lab = Lab::of(object::plain(), program::BAN, Sizes::default());
    let maps = lab.maps();
    assert_eq!(maps.sizes(), Sizes::default());
    for (name, entries) in Sizes::default().entries() {
        let data = maps.handle_to(name).expect("a map");
        assert_eq!(data.info().expect("its description").max_entries(), entries, "{name}");
    }
    assert_eq!(SHAPES.map(|shape| shape.name), map::ALL);
}

/// A folder on a BPF file system that goes away with this.
struct Pins(std::path::PathBuf);

impl Pins {
    fn new(name: &str) -> Pins {
        let path =
            Path::new("/sys/fs/bpf").join(format!("kernel-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap_or_else(|error| {
            panic!(
                "cannot make {}: {error}; mount a BPF file system: mount -t bpf bpf /sys/fs/bpf",
                path.display()
            )
        });
        Pins(path)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn pinned_maps_outlive_their_writer_and_are_adopted_with_every_name() {
    let pins = Pins::new("adopt");
    let long = "x".repeat(500);
    let odd_scope = "tcp:".to_owned()
        + &(0..200).map(|nth| (nth * 3).to_string()).collect::<Vec<_>>().join(",");
    let mut lab = Lab::new(small());
    let mut tables = lab.tables();
    tables.maps().pin(&pins.0).expect("a folder to pin in");
    let odd = Hold {
        jail: long.clone(),
        scope: odd_scope.parse().expect("a scope"),
        until: 1_900_000_000,
    };
    tables.ban(banned(), &odd).expect("room");
    tables.ban(banned(), &hold("sshd")).expect("room");
    tables.ban("203.0.113.0/24".parse().expect("a network"), &hold("")).expect("room");
    tables.allow("198.51.100.1/32".parse().expect("an address")).expect("room");
    let (packet, _) = Frame::parse("v4 tcp=22").build();
    assert_eq!(lab.run(&packet), Action::Drop);
    drop(tables);

    let (mut tables, differences) =
        Tables::adopt(Maps::open(&pins.0).expect("pinned maps")).expect("maps of this version");
    assert!(differences.is_none(), "{differences}");
    assert_eq!(tables.holds(banned()), [odd, hold("sshd")]);
    assert_eq!(tables.holds("203.0.113.0/24".parse().expect("a network")), [hold("")]);
    assert_eq!(
        tables.allowed().map(|net| net.to_string()).collect::<Vec<_>>(),
        ["198.51.100.1/32"]
    );
    assert_eq!(tables.traffic(banned()).map(|dropped| dropped.packets), Some(1));
    assert_eq!(tables.load().v4.bans, 2);
    // The numbers go on where they were: old bans keep their scopes beside new ones.
    let other = Hold { scope: "tcp:23".parse().expect("a scope"), ..hold("other") };
    tables.ban("192.0.2.9/32".parse().expect("an address"), &other).expect("room");
    assert_eq!(lab.run(&packet), Action::Drop);
    assert_eq!(lab.run(&Frame::parse("v4=192.0.2.9 tcp=22").build().0), Action::Pass);
    assert_eq!(lab.run(&Frame::parse("v4=192.0.2.9 tcp=23").build().0), Action::Drop);
}

#[test]
fn maps_of_another_layout_or_shape_are_refused() {
    let lab = Lab::new(small());
    let unfinished = Tables::adopt(lab.maps());
    assert!(matches!(unfinished, Err(TableError::Layout { found: 0, .. })), "{unfinished:?}");
    let pins = Pins::new("shape");
    let missing = Maps::open(&pins.0);
    assert!(matches!(missing, Err(TableError::Open { .. })), "{missing:?}");
    // All but one are right; that one has another's shape.
    lab.tables().maps().pin(&pins.0).expect("a folder to pin in");
    std::fs::rename(pins.0.join(map::BANS_V6), pins.0.join(map::BANS_V4)).expect("a pin to rename");
    let wrong = Maps::open(&pins.0);
    assert!(matches!(wrong, Err(TableError::Shape { map: map::BANS_V4, .. })), "{wrong:?}");
}

#[track_caller]
fn bpftool(arguments: &[&str]) -> String {
    let output = Command::new("bpftool").args(arguments).output().unwrap_or_else(|error| {
        panic!("bpftool: {error}; install it: apt-get install bpftool");
    });
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "bpftool {arguments:?}: {}", said(&output.stderr));
    said(&output.stdout)
}

#[test]
fn bpftool_takes_the_object_and_prints_named_fields() {
    let pins = Pins::new("bpftool");
    let (object, programs) = (pins.0.join("unused"), pins.0.join("programs"));
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), object::plain()).expect("room for the object");
    drop(object);
    bpftool(&[
        "prog",
        "loadall",
        &file.path().display().to_string(),
        &programs.display().to_string(),
    ]);
    for name in [program::BAN, program::BAN_FRAGS, program::SAMPLE_CLOCK] {
        let shown =
            bpftool(&["prog", "show", "pinned", &programs.join(name).display().to_string()]);
        assert!(shown.contains(&format!("name {name} ")), "{shown}");
    }
    let lab = Lab::new(small());
    let mut tables = lab.tables();
    tables.ban(banned(), &hold("sshd")).expect("room");
    tables.maps().pin(&pins.0).expect("a folder to pin in");
    let dump =
        |name: &str| bpftool(&["map", "dump", "pinned", &pins.0.join(name).display().to_string()]);
    let bans = dump(map::BANS_V4);
    for field in ["\"prefix_len\": 32", "\"until\": 4294967295", "\"jail\"", "\"scope\"", "\"id\""]
    {
        assert!(bans.contains(field), "{field} is not in {bans}");
    }
    for (name, field) in [
        (map::CONFIG, "\"clock_offset\""),
        (map::NAMES, "\"length\""),
        (map::COUNTERS, "\"packets\""),
    ] {
        let dumped = dump(name);
        assert!(dumped.contains(field), "{field} is not in {dumped}");
    }
    for name in map::ALL {
        let shown = bpftool(&["map", "show", "pinned", &pins.0.join(name).display().to_string()]);
        assert!(shown.contains(&format!("name {name} ")), "{shown}");
    }
}
