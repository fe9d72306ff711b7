//! The daemon's numbers for `/v1/metrics`. Each is explained in docs/api.md.
use std::collections::HashMap;

use super::{
    Daemon, REPORTS, REQUESTS, answers,
    silence::{self, State},
};
use crate::{
    control::{events, metrics::Metrics},
    enforce::{InterfaceMode, Status},
    engine::MAX_SESSIONS,
    source::{Limit, Readers},
    store,
};

impl Daemon {
    pub(super) fn measure(&self) -> String {
        let mut metrics = Metrics::default();
        let version = env!("CARGO_PKG_VERSION");
        metrics.gauge("build_info", "Which version runs.").add(&[("version", version)], 1.0);
        self.jails(&mut metrics);
        self.sources(&mut metrics);
        let kernel = self.enforcer.as_ref().map(|enforcer| enforcer.status());
        if let Some(status) = &kernel {
            self.kernel(&mut metrics, status);
        }
        self.limits(&mut metrics, kernel.as_ref());
        self.queues(&mut metrics);
        self.telling.measure(&mut metrics);
        metrics.text()
    }

    fn jails(&self, metrics: &mut Metrics) {
        let jails = self.engine.jails();
        let mut each = |name: &str, help: &str, value: &dyn Fn(&crate::engine::Jail) -> f64| {
            let mut samples = match name.ends_with("_total") {
                true => metrics.counter(name, help),
                false => metrics.gauge(name, help),
            };
            for jail in jails {
                samples.add(&[("jail", jail.settings().name.as_str())], value(jail));
            }
        };
        each("jail_findings_total", "Failures counted since the start.", &|jail| {
            jail.totals().failed as f64
        });
        each("jail_bans_total", "Bans made since the start.", &|jail| jail.totals().banned as f64);
        each("jail_failing", "Addresses below the threshold now.", &|jail| {
            jail.currently_failed() as f64
        });
        each("jail_banned", "Live bans.", &|jail| {
            self.engine.bans().count_of(&jail.settings().name) as f64
        });
        each("jail_observe", "1: its bans are counted and drop nothing.", &|jail| {
            f64::from(answers::observes(self, &jail.settings().name))
        });
        // The ban itself is one that nobody configures by name.
        let actions = self.telling.actions();
        let mut results =
            metrics.counter("jail_action_results_total", "What became of a jail's actions.");
        for jail in jails {
            let (name, totals) = (jail.settings().name.as_str(), jail.totals());
            for (result, count) in [("done", totals.banned), ("failed", totals.refused)] {
                let labels = [("jail", name), ("action", "ban"), ("result", result)];
                results.add(&labels, count as f64);
            }
            for action in actions.iter().filter(|action| action.jail == name) {
                let counts = [("done", action.done), ("failed", action.failed)];
                for (result, count) in counts {
                    let labels = [("jail", name), ("action", &action.action), ("result", result)];
                    results.add(&labels, count as f64);
                }
            }
        }
        let mut gave_up = metrics.counter(
            "regex_gave_up_total",
            "Lines that a pattern was stopped on, since its filter was read.",
        );
        for jail in jails.iter().map(|jail| &jail.settings().name) {
            for pattern in self.give_ups.of(jail) {
                let name = pattern.name.to_string();
                let labels = [("jail", jail.as_str()), ("pattern", name.as_str())];
                gave_up.add(&labels, pattern.gave_up() as f64);
            }
        }
        let mut sessions = metrics.gauge("sessions", "Sessions that a jail's filter remembers.");
        for (jail, held, _) in self.give_ups.sessions() {
            sessions.add(&[("jail", jail.as_str())], held as f64);
        }
        let mut lost =
            metrics.counter("sessions_lost_total", "Sessions forgotten for want of room.");
        for (jail, _, lost_so_far) in self.give_ups.sessions() {
            lost.add(&[("jail", jail.as_str())], lost_so_far as f64);
        }
        metrics
            .gauge("session_capacity", "Sessions that a jail's filter remembers at the most.")
            .one(MAX_SESSIONS as f64);
        metrics
            .gauge("bans", "Live bans, those by hand included.")
            .one(self.engine.bans().len() as f64);
    }

    fn sources(&self, metrics: &mut Metrics) {
        let now = (self.clock)();
        let sources =
            self.readers.as_ref().map(|it| silence::sources(&self.settings.jails, it, now));
        let sources = sources.unwrap_or_default();
        let mut each = |name: &str, help: &str, value: &dyn Fn(&silence::Source) -> Option<f64>| {
            let mut samples = metrics.gauge(name, help);
            for source in &sources {
                if let Some(value) = value(source) {
                    samples.add(&[("jail", source.jail.as_str()), ("source", &source.name)], value);
                }
            }
        };
        each("source_up", "1: the log or journal is read.", &|source| {
            Some(f64::from(source.state == State::Read))
        });
        each("source_lag_seconds", "Age of the oldest line that is not read yet.", &|source| {
            Some(source.behind.as_secs_f64())
        });
        each("source_last_line_timestamp_seconds", "When its last line was read.", &|source| {
            Some(source.last?.micros() as f64 / 1e6)
        });
        metrics
            .counter(
                "source_alarms_total",
                "Alarms about sources: silent, gone, unreadable, behind.",
            )
            .one(self.silence.raised() as f64);
    }

    fn kernel(&self, metrics: &mut Metrics, status: &Status) {
        if let Some(counters) = &status.counters {
            let outcomes = [
                ("passed", counters.passed),
                ("dropped", counters.dropped),
                ("would_drop", counters.would_drop),
                ("spared", counters.spared),
                ("not_ip", counters.not_ip),
                ("unreadable", counters.unreadable),
            ];
            let mut packets =
                metrics.counter("packets_total", "Packets judged, by what became of them.");
            for (outcome, counter) in outcomes {
                packets.add(&[("outcome", outcome)], counter.packets as f64);
            }
            let mut bytes = metrics.counter("bytes_total", "Their bytes, link header included.");
            for (outcome, counter) in outcomes {
                bytes.add(&[("outcome", outcome)], counter.bytes as f64);
            }
        }
        interfaces(metrics, status);
        let maps = self.enforcer.as_ref().map(|it| it.map_fills()).unwrap_or_default();
        let mut room = metrics.gauge("map_capacity", "Entries that a kernel map has room for.");
        for (map, _, capacity) in &maps {
            room.add(&[("map", map)], f64::from(*capacity));
        }
        let mut used = metrics.gauge("map_entries", "Entries in it, where they are counted.");
        for (map, entries, _) in maps {
            if let Some(entries) = entries {
                used.add(&[("map", map)], f64::from(entries));
            }
        }
        let spilled = status.load.spilled_lines as f64;
        metrics
            .gauge("map_spilled_lines", "Cache lines too full for all their addresses.")
            .one(spilled);
        metrics
            .counter(
                "map_repairs_total",
                "Times that the maps differed from the bans, and were mended.",
            )
            .one(self.repairs as f64);
        let suppressed = self.enforcer.as_ref().and_then(|it| it.suppressed_samples());
        if let Some(suppressed) = suppressed {
            metrics
                .counter("drop_samples_suppressed_total", "Sampled drops that were not told.")
                .one(suppressed as f64);
        }
        metrics.gauge("observe", "1: nothing is dropped at all.").one(f64::from(status.observe));
    }

    /// Everything that is bounded, with how much of it is in use and what was lost to the bound.
    fn limits(&self, metrics: &mut Metrics, kernel: Option<&Status>) {
        let pending = self.engine.pending();
        let ceiling = self.engine.ceiling();
        let mut fills = vec![
            ("max_pending", pending.addresses as f64, pending.most_addresses as f64),
            ("max_evidence", pending.evidence as f64, pending.most_evidence as f64),
            ("ban_ceiling", f64::from(ceiling.bans), f64::from(ceiling.most)),
            ("logins", ceiling.logins as f64, ceiling.most_logins as f64),
            ("max_history", pending.history as f64, pending.most_history as f64),
            ("event_clients", self.feed.clients() as f64, events::CLIENTS as f64),
        ];
        if let Some(status) = kernel {
            let most = f64::from(self.settings.enforce.max_bans);
            fills.push(("max_bans_ipv4", f64::from(status.load.v4.bans), most));
            fills.push(("max_bans_ipv6", f64::from(status.load.v6.bans), most));
        }
        let mut used = metrics.gauge("limit_used", "How much of a bounded thing is in use.");
        for (limit, value, _) in &fills {
            used.add(&[("limit", limit)], *value);
        }
        let mut most = metrics.gauge("limit_capacity", "Its bound.");
        for (limit, _, value) in &fills {
            most.add(&[("limit", limit)], *value);
        }
        let mut losses = vec![
            ("max_pending", pending.forgotten_addresses),
            ("max_evidence", pending.forgotten_lines),
            ("max_history", pending.forgotten_history),
            ("logins", ceiling.forgotten_logins),
        ];
        losses.extend(kernel.map(|status| ("max_bans", status.refused)));
        let read = self.readers.as_ref().map(Readers::limits);
        losses.extend(read.into_iter().flatten().map(|(limit, count)| {
            let name = match limit {
                Limit::Line => "line_length",
                Limit::Truncated => "truncated_unread",
                Limit::Missed => "rotated_files",
                Limit::Unreadable => "rotated_unreadable",
                Limit::Siblings => "directory_entries",
                Limit::Files => "followed_files",
            };
            (name, count)
        }));
        let exceeded = f64::from(ceiling.is_exceeded);
        metrics
            .gauge("ban_ceiling_exceeded", "1: more bans are made than ban_ceiling a minute.")
            .one(exceeded);
        metrics
            .counter("bans_suspended_total", "Risky bans that were not made for that.")
            .one(ceiling.suspended as f64);
        metrics
            .gauge("bans_lingering", "Banned addresses whose failures are found all the same.")
            .one(self.engine.lingering().len() as f64);
        let mut lost = metrics.counter("limit_lost_total", "What was lost to a bound.");
        for (limit, count) in losses {
            lost.add(&[("limit", limit)], count as f64);
        }
    }

    fn queues(&self, metrics: &mut Metrics) {
        let reports = REPORTS - self.reports.0.capacity();
        let requests = self.requests.upgrade().map_or(0, |asked| REQUESTS - asked.capacity());
        let mut fills = vec![
            ("reports", reports, REPORTS),
            ("requests", requests, REQUESTS),
            ("events", self.feed.waiting(), events::WAITING),
        ];
        let (names, questions) = (self.engine.names(), self.engine.questions());
        fills.push(("names", names.waiting, names.most_waiting));
        let store = self.keeper.status();
        fills.extend(store.as_ref().map(|store| ("store", store.waiting, store::MOST_WAITING)));
        let log = self.log.fill();
        fills.push(("log", log.waiting, log.most));
        let mut length = metrics.gauge("queue_length", "What waits in a queue; of `log`, bytes.");
        for (queue, waiting, _) in &fills {
            length.add(&[("queue", queue)], *waiting as f64);
        }
        let mut capacity = metrics.gauge("queue_capacity", "What it has room for.");
        for (queue, _, most) in &fills {
            capacity.add(&[("queue", queue)], *most as f64);
        }
        let mut lost = metrics.counter("queue_lost_total", "What found a queue full and was lost.");
        lost.add(&[("queue", "events")], self.feed.lost() as f64);
        lost.add(&[("queue", "log")], log.lost as f64);
        lost.add(&[("queue", "names")], names.lost as f64);
        if let Some(store) = &store {
            lost.add(&[("queue", "store")], (store.refused + store.lost) as f64);
        }
        let waits = self.readers.as_ref().map_or(0, Readers::waits);
        metrics
            .counter(
                "queue_waits_total",
                "Times that a reader waited for room: nothing is lost then.",
            )
            .add(&[("queue", "reports")], waits as f64);
        metrics
            .gauge("ignorecommand_waiting", "Failures that wait for an answer of ignorecommand.")
            .one(questions.waiting as f64);
        metrics
            .counter("ignorecommand_failed_total", "Questions to ignorecommand without an answer.")
            .one(questions.failed as f64);
        metrics
            .counter("ignorecommand_unasked_total", "Failures counted without asking it.")
            .one(questions.unasked as f64);
        metrics.gauge("log_up", "1: the log can be written.").one(f64::from(log.fault.is_none()));
        if let Some(store) = store {
            let works = f64::from(store.state == store::State::Works);
            metrics.gauge("store_up", "1: what happens is stored.").one(works);
            metrics
                .counter("store_faults_total", "Times that the store began to fail.")
                .one(store.faults as f64);
            metrics
                .counter("store_transactions_total", "Transactions.")
                .one(store.transactions as f64);
        }
    }
}

fn interfaces(metrics: &mut Metrics, status: &Status) {
    let received = received();
    let of = |name: &str| received.get(name).copied();
    let mut each =
        |name: &str,
         help: &str,
         value: &dyn Fn(&crate::enforce::InterfaceStatus) -> Option<u64>| {
            let mut samples = metrics.counter(name, help);
            for interface in &status.interfaces {
                if let Some(value) = value(interface) {
                    samples.add(&[("interface", &interface.name)], value as f64);
                }
            }
        };
    each("interface_packets_total", "Packets received, as the system counts them.", &|it| {
        Some(of(&it.name)?.packets)
    });
    each("interface_bytes_total", "Bytes received, as the system counts them.", &|it| {
        Some(of(&it.name)?.bytes)
    });
    each("interface_dropped_packets_total", "Packets dropped there.", &|it| {
        Some(it.dropped?.packets)
    });
    each("interface_dropped_bytes_total", "Bytes dropped there.", &|it| Some(it.dropped?.bytes));
    each("interface_would_drop_packets_total", "Packets observed there.", &|it| {
        Some(it.would_drop?.packets)
    });
    let mut modes = metrics.gauge("interface_mode", "1 in the row of the mode it is in.");
    for interface in &status.interfaces {
        let mode = match interface.mode {
            InterfaceMode::Native => "native",
            InterfaceMode::Generic => "generic",
            InterfaceMode::Gone => "gone",
        };
        modes.add(&[("interface", &interface.name), ("mode", mode)], 1.0);
    }
}

#[derive(Clone, Copy)]
struct Received {
    bytes: u64,
    packets: u64,
}

/// What each interface of this network namespace has received: /proc/net/dev, proc(5).
fn received() -> HashMap<String, Received> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let row = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let mut numbers = numbers.split_ascii_whitespace().map(str::parse);
        let (bytes, packets) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some((name.trim().to_owned(), Received { bytes, packets }))
    };
    text.lines().filter_map(row).collect()
}
