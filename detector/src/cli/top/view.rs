//! How it looks.
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::Line,
    widgets::{Block, Clear, Paragraph, Row, Table, TableState, Wrap},
};

use super::state::{Focus, Over, Rate, State, packets};
use crate::control::wire;

/// Keys, as the last line tells them.
const KEYS: &str = "s sort  / filter  Tab list  e explain  u unban  p pause  q quit";

pub(super) fn draw(frame: &mut Frame<'_>, state: &State, now: i64) {
    let alarms = alarms(&state.top.status);
    let [head, busiest, newest, rest, foot] = Layout::vertical([
        Constraint::Length(2 + alarms.len() as u16),
        Constraint::Fill(3),
        Constraint::Fill(2),
        Constraint::Length(3 + below(state)),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(header(state, now, alarms)), head);
    draw_busiest(frame, busiest, state, now);
    draw_newest(frame, newest, state, now);
    let [jails, sources] =
        Layout::horizontal([Constraint::Percentage(45), Constraint::Percentage(55)]).areas(rest);
    draw_jails(frame, jails, state);
    draw_sources(frame, sources, state, now);
    frame.render_widget(Paragraph::new(footer(state)), foot);
    match &state.over {
        Over::Text(text, scroll) => {
            let area = frame.area().inner(ratatui::layout::Margin::new(2, 1));
            frame.render_widget(Clear, area);
            let text = Paragraph::new(text.replace('\t', "  ")).wrap(Wrap { trim: false });
            let block = Block::bordered().title(" explain: any key closes, arrows scroll ");
            frame.render_widget(text.scroll((*scroll, 0)).block(block), area);
        }
        Over::Nothing | Over::Unban(..) | Over::Filter => {}
    }
}

/// Rows that jails and sources need, a few at the most.
fn below(state: &State) -> u16 {
    state.top.status.jails.len().max(state.top.sources.len()).clamp(1, 6) as u16
}

fn header(state: &State, now: i64, alarms: Vec<String>) -> Vec<Line<'static>> {
    let status = &state.top.status;
    let interfaces = status.enforcement.interfaces.iter();
    let interfaces: Vec<String> =
        interfaces.map(|it| format!("{} ({})", it.name, it.mode)).collect();
    let where_ = match interfaces.is_empty() {
        true => "no enforcement".to_owned(),
        false => interfaces.join(", "),
    };
    let mut observe = if status.enforcement.observe { "  OBSERVES" } else { "" }.to_owned();
    if state.paused {
        observe += "  PAUSED";
    }
    let (jails, bans) = (status.jails.len(), status.bans);
    let up = span(now - status.since);
    let version = &status.version;
    let first =
        format!("fail2xdp {version}  up {up}  {where_}  {jails} jails  {bans} bans{observe}");
    let total = status.enforcement.counters.map_or(0, |it| it.dropped.packets);
    let mut rates = format!("dropped {}   passed {}", rate(state.dropped), rate(state.passed));
    if state.would_drop.packets > 0.0 {
        rates += &format!("   would drop {}", rate(state.would_drop));
    }
    let mut lines = vec![
        Line::styled(first, Style::new().add_modifier(Modifier::BOLD)),
        Line::raw(format!("{rates}   {} dropped in all", short(total as f64))),
    ];
    let loud = Style::new().add_modifier(Modifier::REVERSED);
    lines.extend(alarms.into_iter().map(|alarm| Line::styled(alarm, loud)));
    lines
}

/// What is wrong, three lines at the most.
fn alarms(status: &wire::Status) -> Vec<String> {
    let mut alarms = Vec::new();
    if status.ceiling.exceeded {
        let wire::Ceiling { bans, most, .. } = status.ceiling;
        alarms.push(format!("ALARM {bans} new bans within a minute, more than {most}"));
    }
    for jail in &status.jails {
        alarms.extend(jail.alarms.iter().map(|alarm| format!("ALARM [{}] {alarm}", jail.name)));
    }
    alarms.extend(status.enforcement.alarms.iter().rev().map(|alarm| format!("ALARM {alarm}")));
    alarms.truncate(3);
    alarms
}

fn draw_busiest(frame: &mut Frame<'_>, area: Rect, state: &State, now: i64) {
    let rows = state.rows(Focus::Busiest);
    let table = rows.iter().map(|row| {
        let ban = &row.ban;
        Row::new([
            ban.prefix.clone(),
            ban.jail.clone(),
            format!("{}/s", short(row.rate)),
            short(packets(ban) as f64),
            ban.failures.to_string(),
            ban.until.map_or("ever".into(), |end| span(end - now)),
            ban.scope.clone(),
        ])
    });
    let widths = [
        Constraint::Length(24),
        Constraint::Length(14),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Min(8),
    ];
    let head = ["ADDRESS", "JAIL", "RATE", "PACKETS", "FAILURES", "ENDS IN", "DROPS"];
    let title = format!("busiest banned sources, by {}", state.sort.name());
    let table = Table::new(table, widths).header(Row::new(head));
    draw_list(frame, area, state, Focus::Busiest, table, &title);
}

fn draw_newest(frame: &mut Frame<'_>, area: Rect, state: &State, now: i64) {
    let rows = state.rows(Focus::Newest);
    let table = rows.iter().map(|row| {
        let ban = &row.ban;
        let why = match (ban.failures, ban.lines.last()) {
            (0, _) => "by hand".to_owned(),
            (failures, None) => format!("{failures} failures"),
            (failures, Some(line)) => {
                // Without the date and host that syslog writes before it.
                let said = line.split_once("]: ").map_or(&**line, |(_, said)| said);
                format!("{failures} failures: {said}")
            }
        };
        // Lines are an attacker's words.
        let why: String = why.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Row::new([span(now - ban.since), ban.prefix.clone(), ban.jail.clone(), why])
    });
    let widths = [
        Constraint::Length(5),
        Constraint::Length(24),
        Constraint::Length(14),
        Constraint::Min(20),
    ];
    let head = ["AGO", "ADDRESS", "JAIL", "WHY"];
    let table = Table::new(table, widths).header(Row::new(head));
    draw_list(frame, area, state, Focus::Newest, table, "newest bans");
}

fn draw_list(
    frame: &mut Frame<'_>,
    area: Rect,
    state: &State,
    focus: Focus,
    table: Table<'_>,
    title: &str,
) {
    let is_focus = state.focus == focus;
    let mark = if is_focus { "*" } else { " " };
    let table = table
        .block(Block::bordered().title(format!("{mark}{title} ")))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let chosen = (is_focus && !state.rows(focus).is_empty()).then(|| state.selected());
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(chosen));
}

fn draw_jails(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let mut jails: Vec<&wire::Jail> = state.top.status.jails.iter().collect();
    jails.sort_by_key(|jail| std::cmp::Reverse(jail.currently_banned));
    let rows = jails.iter().map(|jail| {
        Row::new([
            jail.name.clone(),
            short(jail.currently_banned as f64),
            short(jail.total_failed as f64),
            short(jail.currently_failed as f64),
        ])
    });
    let widths =
        [Constraint::Min(10), Constraint::Length(7), Constraint::Length(7), Constraint::Length(7)];
    let table = Table::new(rows, widths).header(Row::new(["JAIL", "BANNED", "FOUND", "WATCHED"]));
    frame.render_widget(table.block(Block::bordered().title(" jails ")), area);
}

fn draw_sources(frame: &mut Frame<'_>, area: Rect, state: &State, now: i64) {
    let mut sources: Vec<&wire::Source> = state.top.sources.iter().collect();
    sources.sort_by_key(|source| (source.state == "read", std::cmp::Reverse(source.lag)));
    let rows = sources.iter().map(|source| {
        let how = match source.state.as_str() {
            "read" => format!("{:.1} s", source.lag as f64 / 1000.0),
            other => other.to_owned(),
        };
        let last = source.last.map_or("-".into(), |last| span(now - last));
        Row::new([source.name.clone(), how, last])
    });
    let widths = [Constraint::Min(16), Constraint::Length(9), Constraint::Length(9)];
    let table = Table::new(rows, widths).header(Row::new(["SOURCE", "LAG", "LAST LINE"]));
    frame.render_widget(table.block(Block::bordered().title(" sources ")), area);
}

fn footer(state: &State) -> String {
    match &state.over {
        Over::Filter => format!("filter: {}_   (Enter keeps it, Esc clears it)", state.filter),
        Over::Unban(prefix, jail) => {
            format!("lift the ban of {prefix} by [{jail}]? y: yes, else no")
        }
        _ if !state.said.is_empty() => state.said.clone(),
        _ if !state.filter.is_empty() => format!("filter `{}`   {KEYS}", state.filter),
        _ => KEYS.to_owned(),
    }
}

fn rate(of: Rate) -> String {
    format!("{}/s ({}B/s)", short(of.packets), short(of.bytes))
}

/// A number in six letters at the most: `950`, `12.3k`, `4.5M`.
fn short(number: f64) -> String {
    match number {
        ..10_000.0 => format!("{number:.0}"),
        ..1e6 => format!("{:.1}k", number / 1e3),
        ..1e9 => format!("{:.1}M", number / 1e6),
        _ => format!("{:.1}G", number / 1e9),
    }
}

/// Seconds as `42s`, `12m`, `5h`, `3d`.
fn span(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ ..120 => format!("{seconds}s"),
        seconds @ ..7200 => format!("{}m", seconds / 60),
        seconds @ ..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_are_short() {
        let numbers = [0.0, 9999.0, 12_345.0, 4_500_000.0, 2e9].map(short);
        assert_eq!(numbers, ["0", "9999", "12.3k", "4.5M", "2.0G"]);
        assert_eq!([-5, 119, 600, 7200, 200_000].map(span), ["0s", "119s", "10m", "2h", "2d"]);
    }
}
