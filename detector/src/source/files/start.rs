//! Where to begin in a log that was there before us: at the first line that is not too old to count.
use std::{fs::File, io, ops::ControlFlow, os::unix::fs::FileExt};

use super::{decode::Codec, frame::Framer};
use crate::engine::Timestamp;

/// The search ends when this much is left; reading it takes less time than looking further.
const NEAR: u64 = 64 << 10;

/// Bytes looked through at one place for a line that bears a time.
const PROBE: usize = 128 << 10;

/// Lines looked at in one place.
const PROBE_LINES: usize = 50;

/// Probes that are looked through for the end of a line; a longer one is taken not to end.
const MAX_PROBES: usize = 24;

/// Of a log without times so much is read, from the end. Nothing but its last lines could count.
const UNDATED: u64 = 1 << 20;

/// The start of a line in `from..size` before which every line is older than `since`, found by halving: logs are in
/// the order of time. `from` must be the start of a line. Reads at most a few MiB, however large the file.
///
/// # Errors
/// Reading the file failed.
pub(crate) fn first_since(
    file: &File,
    from: u64,
    size: u64,
    since: Timestamp,
    codec: Codec,
    time_of: &mut dyn FnMut(&str) -> Option<Timestamp>,
) -> io::Result<u64> {
    let mut probe = |at: u64, until: u64| first_dated(file, at, until, codec, time_of);
    let (mut low, mut high) = (from, size);
    let mut dated = false;
    while high.saturating_sub(low) > NEAR {
        let middle = low + (high - low) / 2;
        let start = next_line(file, middle, high, codec)?;
        match probe(start, high)? {
            // Older: all before the end of this line is.
            Some((time, _, end)) if time < since => {
                dated = true;
                low = end;
            }
            Some(_) => {
                dated = true;
                high = middle;
            }
            None => high = middle,
        }
    }
    if dated || size - from <= NEAR || probe(from, size)?.is_some() {
        return Ok(low);
    }
    next_line(file, from.max(size.saturating_sub(UNDATED)), size, codec)
}

/// Where the last line begins that is not complete, or would begin: the end of the last complete one.
pub(crate) fn last_line_start(file: &File, size: u64, codec: Codec) -> io::Result<u64> {
    let width = codec.line_end().width() as u64;
    let mut near = size.saturating_sub(super::frame::MAX_LINE as u64);
    near -= near % width;
    let mut place = near;
    let mut framer = Framer::new(codec.line_end(), near);
    let mut block = vec![0; PROBE];
    while place < size {
        let count = read(file, &mut block, place, codec)?;
        if count == 0 {
            break;
        }
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) =
            framer.feed(&block[..count], false, &mut |_| ControlFlow::<()>::Continue(()));
        place += count as u64;
    }
    // No line end within the longest line there may be: whatever comes is the rest of one that is cut anyway.
    Ok(if framer.line_start() == near && near > 0 { size } else { framer.line_start() })
}

/// The start of the first line at `at` or later; `until` if there is none near.
fn next_line(file: &File, at: u64, until: u64, codec: Codec) -> io::Result<u64> {
    let Some(before) = at.checked_sub(codec.line_end().width() as u64) else { return Ok(0) };
    let width = codec.line_end().width() as u64;
    let mut place = before - before % width;
    let mut framer = Framer::new(codec.line_end(), place);
    let mut block = vec![0; PROBE];
    for _ in 0..MAX_PROBES {
        if place >= until {
            break;
        }
        let count = read(file, &mut block, place, codec)?;
        if count == 0 {
            break;
        }
        let mut lines = 0;
        let flow = framer.feed(&block[..count], false, &mut |_| {
            lines += 1;
            // Broken off at the second line, so that the framer stands at its start.
            if lines > 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if flow.is_break() || lines > 0 {
            return Ok(framer.line_start().min(until));
        }
        place += count as u64;
    }
    Ok(until)
}

/// The first line at `at` or soon after that bears a time: the time, and where the line begins and ends.
pub(crate) fn first_dated(
    file: &File,
    at: u64,
    until: u64,
    codec: Codec,
    time_of: &mut dyn FnMut(&str) -> Option<Timestamp>,
) -> io::Result<Option<(Timestamp, u64, u64)>> {
    if at >= until {
        return Ok(None);
    }
    let mut block = vec![0; PROBE];
    let count = read(file, &mut block, at, codec)?;
    let mut framer = Framer::new(codec.line_end(), at);
    let mut found = None;
    let mut lines = 0;
    let flow = framer.feed(&block[..count], false, &mut |line| {
        // The line after the one that bears a time: where it begins, that one ends.
        if let Some((time, start)) = found {
            return ControlFlow::Break((time, start));
        }
        lines += 1;
        if lines > PROBE_LINES || line.start >= until {
            return ControlFlow::Break((Timestamp::from_seconds(0), u64::MAX));
        }
        found = time_of(&codec.text(line.bytes)).map(|time| (time, line.start));
        ControlFlow::Continue(())
    });
    Ok(match flow {
        ControlFlow::Break((_, u64::MAX)) => None,
        ControlFlow::Break((time, start)) => Some((time, start, framer.line_start())),
        ControlFlow::Continue(()) => found.map(|(time, start)| (time, start, framer.line_start())),
    })
}

/// As many whole units as one read gives.
fn read(file: &File, block: &mut [u8], at: u64, codec: Codec) -> io::Result<usize> {
    let mut have = 0;
    while have < block.len() {
        match file.read_at(&mut block[have..], at + have as u64) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have - have % codec.line_end().width())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Lines like `@17 text`; the number is the time.
    fn time_of(line: &str) -> Option<Timestamp> {
        let seconds = line.strip_prefix('@')?.split(' ').next()?.parse().ok()?;
        Some(Timestamp::from_seconds(seconds))
    }

    /// Searches `text` for `since` and answers the first line from there on and how many lines were read for it.
    #[track_caller]
    fn search(text: &[u8], since: i64, codec: Codec) -> (String, usize, u64) {
        let mut file = tempfile::tempfile().expect("a file for the test");
        file.write_all(text).expect("written");
        let mut asked = 0;
        let since = Timestamp::from_seconds(since);
        let size = text.len() as u64;
        let start = first_since(&file, 0, size, since, codec, &mut |line| {
            asked += 1;
            time_of(line)
        });
        let start = start.expect("readable");
        let rest = codec.text(&text[start as usize..]).into_owned();
        (rest.lines().next().unwrap_or("").to_owned(), asked, start)
    }

    #[test]
    fn the_search_stops_shortly_before_the_first_line_that_counts() {
        let text: String = (0..200_000).map(|n| format!("@{n} a line of some length\n")).collect();
        for since in [0, 1, 777, 100_000, 199_999, 1_000_000] {
            let (line, asked, start) = search(text.as_bytes(), since, Codec::AUTO);
            let time = time_of(&line).map_or(200_000, Timestamp::seconds);
            assert!(
                time <= since.min(200_000) && since.min(200_000) - time < 4000,
                "{since}: {line}"
            );
            assert!(start == 0 || text.as_bytes()[start as usize - 1] == b'\n');
            assert!(asked < 100, "{asked} lines were looked at for {since}");
        }
    }

    #[test]
    fn a_small_log_is_read_whole() {
        assert_eq!(search(b"@1 a\n@2 b\n", 2, Codec::AUTO).2, 0);
        assert_eq!(search(b"", 2, Codec::AUTO).2, 0);
    }

    #[test]
    fn lines_without_a_time_between_do_not_hide_those_with_one() {
        let text: String =
            (0..30_000).map(|n| format!("@{n} start\n{}", "  at somewhere\n".repeat(20))).collect();
        let (line, _, _) = search(text.as_bytes(), 20_000, Codec::AUTO);
        assert!(line.starts_with("@19") || line.starts_with("  at"), "{line}");
        let (_, _, start) = search(text.as_bytes(), 20_000, Codec::AUTO);
        assert!(start > 0 && start < text.len() as u64 * 2 / 3);
    }

    #[test]
    fn of_a_log_without_times_only_the_end_is_read() {
        let text = "no time here\n".repeat(1_000_000);
        let (line, _, start) = search(text.as_bytes(), 5, Codec::AUTO);
        assert_eq!(line, "no time here");
        assert!(text.len() as u64 - start <= UNDATED);
    }

    #[test]
    fn wide_encodings_are_searched_too() {
        let text: String = (0..50_000).map(|n| format!("@{n} wide\n")).collect();
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let codec = Codec::named("utf-16le").expect("known");
        let (line, _, _) = search(&bytes, 30_000, codec);
        let time = time_of(&line).expect("a whole line").seconds();
        assert!((26_000..=30_000).contains(&time), "{line}");
    }

    #[test]
    fn a_line_longer_than_a_probe_ends_the_search_there_and_loses_nothing() {
        let text = format!("@1 old\n{}\n@9 new\n", "x".repeat(3 << 20));
        let (line, _, start) = search(text.as_bytes(), 9, Codec::AUTO);
        assert!(start <= 7, "{start}: {}", &line[..10.min(line.len())]);
    }
}
