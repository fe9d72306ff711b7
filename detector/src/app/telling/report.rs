//! What the runner says, in the log; how actions stand, for `status`, metrics and `doctor`.
use super::Telling;
use crate::{
    action::wire::{Level, Standing},
    app::act::ACTIONS,
    control::{metrics::Metrics, wire},
};

/// The loggers of fail2ban that say what commands do, and what their environment is like.
const UTILS: &str = "fail2ban.utils";
const ACTION: &str = "fail2ban.action";

macro_rules! said {
    ($logger:expr, $level:expr, $jail:expr, $action:expr, $text:expr) => {
        match $level {
            Level::Error => tracing::error!(target: $logger, jail = $jail, action = $action, "{}", $text),
            Level::Warning => tracing::warn!(target: $logger, jail = $jail, action = $action, "{}", $text),
            Level::Info => tracing::info!(target: $logger, jail = $jail, action = $action, "{}", $text),
            Level::Debug => tracing::debug!(target: $logger, jail = $jail, action = $action, "{}", $text),
        }
    };
}

/// A task was given up.
pub(super) fn failed(standing: &Standing, why: &str) {
    said!(ACTIONS, Level::Error, standing.jail.as_str(), standing.action.as_str(), why);
}

/// Line by line, each by the logger of fail2ban that would say it.
pub(super) fn log(jail: &str, action: &str, level: Level, text: &str) {
    let of_actions = ["Failed to ", "["].iter().any(|begin| text.starts_with(begin));
    let of_action =
        ["Invariant check", "Unable to restore"].iter().any(|begin| text.starts_with(begin));
    for line in text.lines() {
        if of_actions {
            said!(ACTIONS, level, jail, action, line);
        } else if of_action {
            said!(ACTION, level, jail, action, line);
        } else {
            said!(UTILS, level, jail, action, line);
        }
    }
}

impl Telling {
    /// How each action stands.
    pub fn actions(&self) -> Vec<wire::ActionState> {
        let state =
            |(jail, action): (&crate::config::JailName, &super::Action)| wire::ActionState {
                jail: jail.to_string(),
                action: action.name.to_string(),
                waiting: action.queue.len() + action.queue.out().len(),
                done: action.counts.done,
                failed: action.counts.failed,
                failed_in_a_row: action.counts.failed_in_a_row,
                dropped: action.counts.dropped,
                fault: action.failing.clone(),
            };
        let all = self.jails.iter().flat_map(|(jail, of)| of.iter().map(move |it| (jail, it)));
        all.map(state).collect()
    }

    /// The runner; `None`: there is nothing for it to do.
    pub fn runner(&self) -> Option<wire::ActionRunner> {
        self.link.as_ref()?;
        let state = if self.up.is_some() { "works" } else { "gone" };
        Some(wire::ActionRunner { state: state.into(), lost: self.lost, fault: self.fault.clone() })
    }

    pub fn measure(&self, metrics: &mut Metrics) {
        let actions = self.actions();
        let mut queued =
            metrics.gauge("action_queue_length", "What waits for an action of a jail.");
        for action in &actions {
            queued
                .add(&[("jail", &action.jail), ("action", &action.action)], action.waiting as f64);
        }
        let mut dropped = metrics.counter(
            "action_dropped_total",
            "What was dropped because too much waited for an action.",
        );
        for action in &actions {
            dropped
                .add(&[("jail", &action.jail), ("action", &action.action)], action.dropped as f64);
        }
        metrics
            .gauge("action_queue_bytes", "Bytes of all that waits for actions.")
            .one(self.bytes as f64);
        metrics
            .gauge("action_runner_up", "1: the action runner is there.")
            .one(f64::from(self.up.is_some()));
        metrics
            .counter("action_runner_lost_total", "Times that the action runner went away.")
            .one(self.lost as f64);
    }
}
