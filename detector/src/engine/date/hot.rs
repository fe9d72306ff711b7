//! The two dates that nearly every log writes, read by hand.
//!
//! What is not exactly of the common form, down to the bytes behind it, is left to the pattern. A
//! property test holds the two against each other.
use super::{
    resolve::{Pieces, Zone},
    template::{Found, month_named},
};

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hot {
    /// `Nov 21 14:00:00`, first in the line.
    Syslog,
    /// `2026-11-21T14:00:00.123456+01:00` with any of its parts behind the seconds missing, first in
    /// the line; years up to the given one.
    Iso {
        /// The last year of the pattern's range.
        until: i16,
    },
}

/// The date at the very start of `line`; `None` if it is not of the common form.
pub(super) fn find(hot: Hot, line: &str) -> Option<Found> {
    let (end, pieces) = match hot {
        Hot::Syslog => syslog(line)?,
        Hot::Iso { until } => iso(line.as_bytes(), until)?,
    };
    Some(Found { whole: 0..end, cut: 0..end, pieces: Some(pieces) })
}

/// Two digits at `at`.
fn pair(bytes: &[u8], at: usize) -> Option<i8> {
    let [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = *bytes.get(at..at + 2)? else { return None };
    Some(((tens - b'0') * 10 + (ones - b'0')) as i8)
}

/// `HH:MM:SS` at `at`.
fn clock(bytes: &[u8], at: usize, pieces: &mut Pieces) -> Option<()> {
    if bytes.get(at + 2) != Some(&b':') || bytes.get(at + 5) != Some(&b':') {
        return None;
    }
    pieces.hour = pair(bytes, at).filter(|hour| *hour < 24)?;
    pieces.minute = pair(bytes, at + 3).filter(|minute| *minute < 60)?;
    pieces.second = pair(bytes, at + 6).filter(|second| *second < 60)?;
    Some(())
}

fn syslog(line: &str) -> Option<(usize, Pieces)> {
    const END: usize = "Nov 21 14:00:00".len();
    let bytes = line.as_bytes();
    if bytes.get(3) != Some(&b' ') || bytes.get(6) != Some(&b' ') {
        return None;
    }
    let mut pieces = Pieces { month: Some(month_named(line)?), ..Pieces::default() };
    let day = match bytes[4] {
        b' ' => match bytes[5] {
            digit @ b'1'..=b'9' => (digit - b'0') as i8,
            _ => return None,
        },
        _ => pair(bytes, 4).filter(|day| (1..=31).contains(day))?,
    };
    pieces.day = Some(day);
    clock(bytes, 7, &mut pieces)?;
    // A fraction or a year may follow; then the pattern decides where the date ends.
    match bytes.get(END..)? {
        [] | [b':', ..] | [b' '] => {}
        [b' ', next, ..] if next.is_ascii() && !next.is_ascii_digit() => {}
        _ => return None,
    }
    Some((END, pieces))
}

fn iso(bytes: &[u8], until: i16) -> Option<(usize, Pieces)> {
    const SECONDS_END: usize = "2026-11-21T14:00:00".len();
    let [b'2', b'0', ..] = *bytes else { return None };
    let year = 2000 + i16::from(pair(bytes, 2)?);
    if year > until
        || bytes.get(4) != Some(&b'-')
        || bytes.get(7) != Some(&b'-')
        || !matches!(bytes.get(10), Some(b'T' | b' '))
    {
        return None;
    }
    let mut pieces = Pieces {
        year: Some(year),
        month: Some(pair(bytes, 5).filter(|month| (1..=12).contains(month))?),
        day: Some(pair(bytes, 8).filter(|day| (1..=31).contains(day))?),
        ..Pieces::default()
    };
    clock(bytes, 11, &mut pieces)?;
    let mut end = SECONDS_END;
    if let [b'.' | b',', rest @ ..] = &bytes[end..] {
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=6).contains(&digits) {
            return None;
        }
        end += 1 + digits;
    }
    match &bytes[end..] {
        [] => {}
        // A zone may stand after blanks.
        [b' ', next, ..]
            if next.is_ascii_graphic() && !matches!(next, b'Z' | b'U' | b'G' | b'+' | b'-') => {}
        [b':' | b']' | b',' | b';' | b'|', ..] => {}
        [b'Z'] => {
            pieces.zone = Some(Zone::Offset(0));
            end += 1;
        }
        [b'Z', next, ..] if next.is_ascii() && !(next.is_ascii_alphanumeric() || *next == b'_') => {
            pieces.zone = Some(Zone::Offset(0));
            end += 1;
        }
        [sign @ (b'+' | b'-'), b'0' | b'1', ..] if bytes.get(end + 3) == Some(&b':') => {
            let hours = i32::from(pair(bytes, end + 1)?);
            let minutes = i32::from(pair(bytes, end + 4)?);
            match bytes.get(end + 6) {
                None => {}
                Some(next)
                    if next.is_ascii() && !(next.is_ascii_alphanumeric() || *next == b'_') => {}
                Some(_) => return None,
            }
            let east = hours * 3600 + minutes * 60;
            pieces.zone = Some(Zone::Offset(if *sign == b'-' { -east } else { east }));
            end += 6;
        }
        _ => return None,
    }
    Some((end, pieces))
}
