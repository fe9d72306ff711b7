//! One ban from one end to the other.
use fail2xdp::{
    config::Scope,
    enforce::tables::{Hold, Sizes},
};

use crate::lab::{Action, Lab, NOW};

#[test]
fn a_banned_address_is_dropped_until_it_is_lifted() {
    let mut lab = Lab::new(Sizes::for_bans(1024, 1024));
    let mut tables = lab.tables();
    let mut packet = vec![2u8; 12];
    packet.extend([8, 0, 0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 192, 0, 2, 7, 10, 0, 0, 1]);
    packet.extend([4, 0xd2, 0, 22]);
    packet.extend([0; 30]);
    assert_eq!(lab.run(&packet), Action::Pass);
    let prefix = "192.0.2.7/32".parse().unwrap();
    tables
        .ban(prefix, &Hold { jail: "sshd".into(), scope: Scope::EveryPacket, until: NOW + 1 })
        .unwrap();
    assert_eq!(lab.run(&packet), Action::Drop);
    assert_eq!(tables.traffic(prefix).unwrap().packets, 1);
    let dropped = tables.unban(prefix, "sshd").unwrap().unwrap();
    assert_eq!(dropped.packets, 1);
    assert_eq!(lab.run(&packet), Action::Pass);
    let counters = tables.counters().unwrap();
    assert_eq!((counters.passed.packets, counters.dropped.packets), (2, 1));
}
