//! Jails that read fail2ban's log hear of bans without it, by Debian's filter and by ours, whatever log it is made for.
mod peer;
use std::{path::Path, sync::Arc, time::Duration};

use fail2xdp::{
    config::{
        self, BanTime, JailName, JailSettings, JournalSettings, LogPath, ReadFault, Scope,
        SourceSettings, Tree,
    },
    config_tree::ShippedTree,
    engine::{Ban, Effect, Engine, Event, Limits, Origin, Timestamp, Until},
};
use ipnet::IpNet;

const NOW: Timestamp = Timestamp::from_seconds(1_795_269_600);

/// Whom the listener bans when this jail has banned somebody.
fn heard(listener: JailSettings, jail: &str, prefix: &str) -> String {
    let (own, source) = (JailName::new(jail), SourceSettings::Nothing);
    let other = JailSettings { name: own.clone(), source, ..listener.clone() };
    let name = listener.name.clone();
    let listener = JailSettings { max_retry: 9, ban_time: BanTime::Permanent, ..listener };
    // A jail may hear of its own bans.
    let jails = if own == name { vec![listener] } else { vec![other, listener] };
    let mut engine = Engine::new(&jails, Limits::default());
    let prefix: IpNet = prefix.parse().expect("a prefix");
    let effects = engine.handle(
        Event::Ban(Ban {
            prefix,
            jail: JailName::new(jail),
            scope: Arc::new(Scope::EveryPacket),
            since: NOW,
            until: Until::At(NOW.plus(Duration::from_secs(600))),
            failures: 5,
            count: 1,
            counted: true,
            lines: Vec::new(),
            origin: Origin::default(),
        }),
        NOW,
    );
    let made = effects.iter().filter_map(|effect| match effect {
        Effect::Found { jail, who, .. } if *jail == name => Some(who.to_string()),
        _ => None,
    });
    made.collect::<Vec<_>>().join(" ")
}

fn debian(params: &[(&str, &str)], source: SourceSettings) -> JailSettings {
    let params: Vec<(String, String)> =
        params.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let jail = peer::jail("recidive", &params);
    JailSettings { name: JailName::new("recidive"), source, ignore_self: false, ..jail }
}

fn file() -> SourceSettings {
    let path = LogPath { pattern: "/var/log/fail2ban.log".into(), tail: false, place: None };
    SourceSettings::Files { paths: vec![path], encoding: "auto".into() }
}

#[test]
fn debians_filter_hears_every_ban_but_its_own() {
    for log_type in ["file", "short", "journal"] {
        let source = match log_type {
            "journal" => SourceSettings::Journal(JournalSettings::default()),
            _ => file(),
        };
        let jail = || debian(&[("logtype", log_type)], source.clone());
        assert_eq!(heard(jail(), "sshd", "192.0.2.1/32"), "192.0.2.1", "{log_type}");
        assert_eq!(heard(jail(), "sshd", "2001:db8::7/128"), "2001:db8::7", "{log_type}");
        assert_eq!(heard(jail(), "sshd", "2001:db8::/64"), "2001:db8::/64", "{log_type}");
        assert_eq!(heard(jail(), "recidive", "192.0.2.1/32"), "", "{log_type}");
    }
    let named = debian(&[("_jailname", "again")], file());
    assert_eq!(heard(named.clone(), "again", "192.0.2.1/32"), "");
    assert_eq!(heard(named, "recidive-too", "192.0.2.1/32"), "192.0.2.1");
}

/// The shipped tree with that jail on.
struct Shipped;

impl Tree for Shipped {
    fn root(&self) -> &Path {
        ShippedTree.root()
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        match file == self.root().join("jail.local") {
            true => Ok(Some(b"[recidive]\nenabled = yes\n".to_vec())),
            false => ShippedTree.read(file),
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        ShippedTree.list(folder)
    }
}

#[test]
fn our_own_filter_hears_every_ban_but_its_own() {
    let jails = config::load(&Shipped).expect("the shipped tree").settings.jails;
    let shipped = jails.into_iter().find(|jail| jail.name.as_str() == "recidive").expect("on");
    let shipped = JailSettings { ignore_self: false, ..shipped };
    for source in [file(), SourceSettings::Journal(JournalSettings::default())] {
        let jail = JailSettings { source, ..shipped.clone() };
        assert_eq!(heard(jail.clone(), "sshd", "192.0.2.1/32"), "192.0.2.1");
        assert_eq!(heard(jail.clone(), "nginx-botsearch", "2001:db8::/64"), "2001:db8::/64");
        assert_eq!(heard(jail, "recidive", "192.0.2.1/32"), "");
    }
}
