//! What the tags of a command stand for when somebody is banned.
use std::{borrow::Cow, net::IpAddr, sync::LazyLock};

use ipnet::IpNet;

use super::{
    hosts::{Hosts, OwnNames},
    wire::{Past, Task, Ticket},
};
use crate::{
    config::Value,
    engine::{Meaning, reversed},
};

/// The families of addresses; raw text has none.
pub(super) const INET4: &str = "inet4";
pub(super) const INET6: &str = "inet6";
/// What fail2ban calls that in commands.
pub(super) const NO_FAMILY: &str = "None";

/// The family of who is banned.
pub(super) fn family_of(ticket: &Ticket) -> &'static str {
    match address_of(ip_of(ticket)) {
        Some(IpAddr::V4(_)) => INET4,
        Some(IpAddr::V6(_)) => INET6,
        None => NO_FAMILY,
    }
}

/// The address that failed, or what stands in its place.
pub(super) fn ip_of(ticket: &Ticket) -> &str {
    ticket.ip.as_deref().unwrap_or(&ticket.id)
}

fn address_of(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<IpNet>().ok().map(|net| net.addr()))
}

/// What is known when a task is done.
pub(super) struct Tags<'a> {
    pub task: &'a Task,
    /// `None` for what is about nobody, also when it is done for a task that is about somebody.
    pub ticket: Option<&'a Ticket>,
    /// `inet4`, `inet6`; [`NO_FAMILY`], or empty for what is about nobody.
    pub family: &'a str,
    /// Seconds that the jail bans for; -1 for ever.
    pub jail_ban_time: i64,
    pub own: &'a OwnNames,
    /// The name of the address, where the command asks for it.
    pub host: Option<String>,
}

impl<'a> Tags<'a> {
    /// What a command wants looked up, is.
    pub(super) async fn look_up(&mut self, hosts: &Hosts, command: &str) {
        if !command.contains("<ip-host>") {
            return;
        }
        if let Some(address) = self.address() {
            self.host = hosts.name_of(address).await;
        }
    }

    fn ticket(&self) -> &'a Ticket {
        static NOBODY: LazyLock<Ticket> = LazyLock::new(Ticket::default);
        self.ticket.unwrap_or(&NOBODY)
    }

    fn ip(&self) -> &'a str {
        ip_of(self.ticket())
    }

    fn address(&self) -> Option<IpAddr> {
        address_of(self.ip())
    }

    /// What a tag stands for.
    pub(super) fn tag(&self, tag: &str) -> Option<Meaning<'a>> {
        let ticket = self.ticket();
        let counts = self.task.counts;
        let past = |past: &'a Option<Past>| past.as_ref();
        let value: Cow<'a, str> = match tag {
            "ip" => self.ip().into(),
            "fid" => ticket.id.as_str().into(),
            "family" => self.family.to_owned().into(),
            "ip-rev" => self.address().map_or(String::new(), reversed).into(),
            "ip-host" => self.host.clone().unwrap_or_else(|| NO_FAMILY.to_owned()).into(),
            "failures" => ticket.failures.to_string().into(),
            "time" if ticket.restored => format!("{:.0}", ticket.time.trunc()).into(),
            "time" => format!("{:?}", self.time()).into(),
            "bantime" => self.ban_time().to_string().into(),
            "bancount" => ticket.ban_count.to_string().into(),
            "restored" => (if ticket.restored { "1" } else { "0" }).into(),
            "matches" => ticket.matches.join("\n").into(),
            "ipmatches" => match past(&ticket.of_address) {
                Some(past) => past.matches.join("\n").into(),
                None => ticket.matches.join("\n").into(),
            },
            "ipjailmatches" => match past(&ticket.of_jail) {
                Some(past) => past.matches.join("\n").into(),
                None => ticket.matches.join("\n").into(),
            },
            "ipfailures" => failures(past(&ticket.of_address), ticket).into(),
            "ipjailfailures" => failures(past(&ticket.of_jail), ticket).into(),
            "F-*" => self.data().into(),
            "raw-ticket" => self.raw().into(),
            "jail.banned" => counts.banned.to_string().into(),
            "jail.banned_total" => counts.banned_total.to_string().into(),
            "jail.found" => counts.found.to_string().into(),
            "jail.found_total" => counts.found_total.to_string().into(),
            "jail.name" => self.task.jail.as_str().into(),
            other => return self.own.tag(other).map(|text| Meaning::Text(text.to_owned().into())),
        };
        Some(Meaning::Value(value))
    }

    /// What `<F-USER>` stands for: what the failregex found under `user`.
    pub(super) fn field(&self, name: &str) -> Option<Cow<'a, str>> {
        let ticket = self.ticket();
        let option = crate::engine::option_of(name);
        let plain = option.replace('-', "_");
        if let Some(value) = ticket.fields.get(&option).or_else(|| ticket.fields.get(&plain)) {
            return Some(value.as_str().into());
        }
        match option.as_str() {
            "failures" => Some(ticket.failures.to_string().into()),
            "matches" => Some(self.matches().to_string().into()),
            "ip" => ticket.ip.as_deref().map(Cow::from),
            "fid" => Some(ticket.id.as_str().into()),
            _ => None,
        }
    }

    fn time(&self) -> f64 {
        self.ticket.map_or(self.task.at, |ticket| ticket.time)
    }

    fn ban_time(&self) -> i64 {
        self.ticket.map_or(self.jail_ban_time, |ticket| ticket.ban_time)
    }

    fn matches(&self) -> Value {
        Value::List(self.ticket().matches.iter().map(|line| line.as_str().into()).collect())
    }

    fn data(&self) -> String {
        let mut data = vec![
            ("matches".to_owned(), self.matches()),
            ("failures".to_owned(), i64::from(self.ticket().failures).into()),
        ];
        data.extend(self.ticket().ip.iter().map(|ip| ("ip".to_owned(), ip.as_str().into())));
        let fields = self.ticket().fields.iter();
        data.extend(fields.map(|(name, value)| (name.clone(), value.as_str().into())));
        Value::Map(data).to_string()
    }

    /// For who looks for a fault.
    fn raw(&self) -> String {
        let Ticket { id, ban_count, failures, .. } = self.ticket();
        let (time, ban_time, matches) = (self.time(), self.ban_time(), self.matches());
        format!(
            "BanTicket: ip={id} time={time:?} bantime={ban_time} bancount={ban_count} #attempts={failures} matches={matches}"
        )
    }
}

fn failures(past: Option<&Past>, ticket: &Ticket) -> String {
    past.map_or(u64::from(ticket.failures), |past| past.failures).to_string()
}

impl OwnNames {
    /// Tags that stand for the same whoever is banned.
    pub(super) fn tag(&self, tag: &str) -> Option<&str> {
        match tag {
            "br" => Some("\n"),
            "sp" => Some(" "),
            "fq-hostname" => Some(&self.full),
            "sh-hostname" => Some(&self.short),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        action::wire::{Counts, Kind},
        engine::Script,
    };

    /// Whoever owns a zone of the DNS chooses the names of his hosts.
    #[test]
    fn names_of_hosts_are_no_part_of_the_commands_text() {
        let task = Task {
            seq: 1,
            jail: "j".to_owned(),
            action: "a".to_owned(),
            kind: Kind::Ban,
            at: 0.0,
            counts: Counts::default(),
            ticket: None,
        };
        let ticket = Ticket { id: "192.0.2.1".to_owned(), ..Ticket::default() };
        let tags = Tags {
            task: &task,
            ticket: Some(&ticket),
            family: INET4,
            jail_ban_time: 600,
            own: &OwnNames::default(),
            host: Some("a.$(id).`id`.\"'example".to_owned()),
        };
        let script = Script::new("tell <ip> \"<ip-host>\"", |tag| tags.tag(tag), |_| None);
        assert_eq!(script.text, "f2bV_ip_host=$0 \ntell 192.0.2.1 \"$f2bV_ip_host\"");
        assert_eq!(script.arguments, ["a.$(id).`id`.\"'example"]);
    }
}
