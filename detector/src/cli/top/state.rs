//! What the view shows, and what keys do to it. Pure: the daemon's answers and keys in, wishes out.
use std::collections::HashMap;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::control::wire;

/// What somebody wants of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// Of this prefix.
    Explain(String),
    /// A prefix, and the jail that bans it.
    Unban(String, String),
}

/// Which list keys move in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Focus {
    Busiest,
    Newest,
}

/// What the busiest are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Rate,
    Packets,
    Failures,
    End,
}

impl Sort {
    pub fn name(self) -> &'static str {
        match self {
            Sort::Rate => "packets/s",
            Sort::Packets => "packets",
            Sort::Failures => "failures",
            Sort::End => "end",
        }
    }

    fn next(self) -> Sort {
        match self {
            Sort::Rate => Sort::Packets,
            Sort::Packets => Sort::Failures,
            Sort::Failures => Sort::End,
            Sort::End => Sort::Rate,
        }
    }
}

/// What lies over the lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Nothing,
    /// A text, scrolled down by so many lines.
    Text(String, u16),
    /// Shall this ban be lifted?
    Unban(String, String),
    /// The filter is being written.
    Filter,
}

/// Packets and bytes of the last second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub packets: f64,
    pub bytes: f64,
}

/// A ban as a row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub ban: wire::Ban,
    /// Packets dropped, or observed, a second.
    pub rate: f64,
}

pub(super) struct State {
    pub top: wire::Top,
    pub dropped: Rate,
    pub passed: Rate,
    pub would_drop: Rate,
    rates: HashMap<(String, String), f64>,
    pub focus: Focus,
    pub sort: Sort,
    pub filter: String,
    selected: usize,
    pub over: Over,
    /// What came of the last order.
    pub said: String,
    pub paused: bool,
}

impl State {
    pub fn new(top: wire::Top) -> State {
        State {
            top,
            dropped: Rate::default(),
            passed: Rate::default(),
            would_drop: Rate::default(),
            rates: HashMap::new(),
            focus: Focus::Busiest,
            sort: Sort::Rate,
            filter: String::new(),
            selected: 0,
            over: Over::Nothing,
            said: String::new(),
            paused: false,
        }
    }

    /// A newer answer: what differs from the last one makes the rates.
    pub fn take(&mut self, top: wire::Top) {
        if self.paused {
            return;
        }
        let seconds = (top.at - self.top.at) as f64 / 1000.0;
        if seconds <= 0.0 {
            self.top = top;
            return;
        }
        let counters = |of: &wire::Top| of.status.enforcement.counters.unwrap_or_default();
        let (old, new) = (counters(&self.top), counters(&top));
        let rate = |old: wire::Traffic, new: wire::Traffic| Rate {
            packets: new.packets.saturating_sub(old.packets) as f64 / seconds,
            bytes: new.bytes.saturating_sub(old.bytes) as f64 / seconds,
        };
        self.dropped = rate(old.dropped, new.dropped);
        self.passed = rate(old.passed, new.passed);
        self.would_drop = rate(old.would_drop, new.would_drop);
        let known: HashMap<_, _> = self.bans().map(|ban| (key(ban), packets(ban))).collect();
        self.rates = top
            .busiest
            .iter()
            .chain(&top.newest)
            .filter_map(|ban| {
                let before = known.get(&key(ban))?;
                Some((key(ban), packets(ban).saturating_sub(*before) as f64 / seconds))
            })
            .collect();
        self.top = top;
    }

    fn bans(&self) -> impl Iterator<Item = &wire::Ban> {
        self.top.busiest.iter().chain(&self.top.newest)
    }

    /// The rows of a list that the filter lets through, in their order.
    pub fn rows(&self, of: Focus) -> Vec<Row> {
        let bans = match of {
            Focus::Busiest => &self.top.busiest,
            Focus::Newest => &self.top.newest,
        };
        let wanted = |ban: &&wire::Ban| {
            let texts = [&ban.prefix, &ban.jail, &ban.scope];
            texts.into_iter().chain(&ban.lines).any(|text| text.contains(&self.filter))
        };
        let mut rows: Vec<Row> = bans
            .iter()
            .filter(wanted)
            .map(|ban| Row {
                rate: self.rates.get(&key(ban)).copied().unwrap_or(0.0),
                ban: ban.clone(),
            })
            .collect();
        if of == Focus::Busiest {
            rows.sort_by(|one, other| match self.sort {
                Sort::Rate => other.rate.total_cmp(&one.rate),
                Sort::Packets => packets(&other.ban).cmp(&packets(&one.ban)),
                Sort::Failures => other.ban.failures.cmp(&one.ban.failures),
                Sort::End => {
                    let end = |ban: &wire::Ban| ban.until.unwrap_or(i64::MAX);
                    end(&one.ban).cmp(&end(&other.ban))
                }
            });
        }
        rows
    }

    /// The row in focus that keys are about.
    pub fn selected(&self) -> usize {
        self.selected.min(self.rows(self.focus).len().saturating_sub(1))
    }

    pub fn show(&mut self, text: String) {
        self.over = Over::Text(text, 0);
    }

    pub fn say(&mut self, what: String) {
        if !what.is_empty() {
            self.said = what;
        }
    }

    pub fn key(&mut self, key: KeyEvent) -> Wish {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Wish::Quit;
        }
        self.said.clear();
        match std::mem::replace(&mut self.over, Over::Nothing) {
            Over::Nothing => self.plain_key(key.code),
            Over::Text(text, scroll) => {
                self.over = match key.code {
                    KeyCode::Down => Over::Text(text, scroll.saturating_add(1)),
                    KeyCode::Up => Over::Text(text, scroll.saturating_sub(1)),
                    KeyCode::PageDown => Over::Text(text, scroll.saturating_add(10)),
                    KeyCode::PageUp => Over::Text(text, scroll.saturating_sub(10)),
                    _ => Over::Nothing,
                };
                Wish::Nothing
            }
            Over::Unban(prefix, jail) => match key.code {
                KeyCode::Char('y') => Wish::Unban(prefix, jail),
                _ => Wish::Nothing,
            },
            Over::Filter => {
                match key.code {
                    KeyCode::Enter => return Wish::Nothing,
                    KeyCode::Esc => {
                        self.filter.clear();
                        return Wish::Nothing;
                    }
                    KeyCode::Backspace => drop(self.filter.pop()),
                    KeyCode::Char(letter) => self.filter.push(letter),
                    _ => {}
                }
                self.over = Over::Filter;
                Wish::Nothing
            }
        }
    }

    fn plain_key(&mut self, key: KeyCode) -> Wish {
        let rows = self.rows(self.focus);
        self.selected = self.selected();
        match key {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Down => self.selected = (self.selected + 1).min(rows.len().saturating_sub(1)),
            KeyCode::Up => self.selected = self.selected.saturating_sub(1),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = rows.len().saturating_sub(1),
            KeyCode::Tab => {
                self.focus = match self.focus {
                    Focus::Busiest => Focus::Newest,
                    Focus::Newest => Focus::Busiest,
                };
                self.selected = 0;
            }
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Char('/') => self.over = Over::Filter,
            KeyCode::Char('e') | KeyCode::Enter => {
                if let Some(row) = rows.get(self.selected) {
                    return Wish::Explain(row.ban.prefix.clone());
                }
            }
            KeyCode::Char('u') => {
                if let Some(Row { ban, .. }) = rows.get(self.selected) {
                    self.over = Over::Unban(ban.prefix.clone(), ban.jail.clone());
                }
            }
            _ => {}
        }
        Wish::Nothing
    }
}

fn key(ban: &wire::Ban) -> (String, String) {
    (ban.prefix.clone(), ban.jail.clone())
}

/// Packets that were dropped, or would have been.
pub(super) fn packets(ban: &wire::Ban) -> u64 {
    ban.packets.unwrap_or(0) + ban.would_drop.unwrap_or(0)
}
