//! Which templates a `datepattern` asks for.
use super::{
    DateFault,
    hot::Hot,
    template::{ANCHORED_WEIGHT, LINE_BEGIN, Template},
};

/// One of the forms known without being told.
struct Default {
    /// With `%` codes; `{sep}` stands for the same separator each time.
    text: &'static str,
    /// What `{sep}` may be.
    separators: &'static [&'static str],
    /// Whether a copy bound to the beginning of the line is tried first.
    bound_copy: bool,
}

const fn plain(text: &'static str) -> Default {
    Default { text, separators: &[], bound_copy: true }
}

const fn only_as_written(text: &'static str) -> Default {
    Default { text, separators: &[], bound_copy: false }
}

const EPOCH: &str = "EPOCH";
const TAI64N: &str = "TAI64N";
const TAI64N_PATTERN: &str = "(?P<tai>@[0-9a-f]{24})";
const EPOCH_PATTERN: &str = r"(?P<epoch>[0-9]{10,11}\b(?:\.[0-9]{3,6})?)";
const LONG_EPOCH_PATTERN: &str = r"(?P<epoch>[0-9]{10,11}(?:[0-9]{3}(?:\.[0-9]{1,6}|[0-9]{3})?)?)";

/// In the order in which they are tried.
const DEFAULTS: [Default; 17] = [
    Default {
        text: r"%ExY{sep}%m{sep}%d(?:T|  ?)%H:%M:%S(?:[.,]%f)?(?:\s*%z)?",
        separators: &["-", "/", r"\."],
        bound_copy: true,
    },
    plain(r"(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?"),
    plain(r"(?:%a )?%b %d %ExY %k:%M:%S(?:\.%f)?"),
    Default {
        text: r"%d{sep}%m{sep}(?:%ExY|%Exy) %k:%M:%S",
        separators: &["-", "/"],
        bound_copy: true,
    },
    Default {
        text: r"%d{sep}%b{sep}%ExY[ :]?%H:%M:%S(?:\.%f)?(?: %z)?",
        separators: &["-", "/"],
        bound_copy: true,
    },
    plain(r"%m/%d/%ExY:%H:%M:%S"),
    plain(r"%m-%d-%ExY %k:%M:%S(?:\.%f)?"),
    plain(EPOCH),
    only_as_written(r"^(?:\W{0,2})?%H:%M:%S"),
    only_as_written(r"^<%m/%d/%Exy@%H:%M:%S>"),
    plain(r"%Exy%Exm%Exd  ?%H:%M:%S"),
    plain(r"%b %d, %ExY %I:%M:%S %p"),
    only_as_written(r"^%b-%d-%Exy %k:%M:%S"),
    plain(r"%ExY%Exm%Exd(?:-|T|  ?)%ExH:?%ExM:?%ExS(?:[.,]%f)?(?:\s*%z)?"),
    plain(r"(?:%Z )?(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?"),
    plain(r"(?:%z )?(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?"),
    plain(TAI64N),
];

impl Default {
    /// What stands for `{DATE}`: the pattern with what binds it to places where it alone is a date.
    fn within(&self) -> String {
        match self.text {
            EPOCH => format!(r"(?:^|(?<=^\[)|(?<=\baudit\()){EPOCH_PATTERN}"),
            _ => {
                let text = self.expanded();
                text.strip_prefix(LINE_BEGIN).map_or(text.clone(), str::to_owned)
            }
        }
    }

    /// The pattern with `%` codes, one branch for each separator: regular, where a back-reference is not.
    fn expanded(&self) -> String {
        match self.text {
            EPOCH => EPOCH_PATTERN.to_owned(),
            TAI64N => TAI64N_PATTERN.to_owned(),
            text if self.separators.is_empty() => text.to_owned(),
            text => {
                let branches: Vec<_> = self
                    .separators
                    .iter()
                    .map(|separator| text.replace("{sep}", separator))
                    .collect();
                format!("(?:{})", branches.join("|"))
            }
        }
    }

    fn bound(&self, nth: usize, year: i16) -> Template {
        let name = format!("{{^LN-BEG}}{}", self.text);
        let template = Template::known(&name, &format!("{LINE_BEGIN}{}", self.expanded()), year);
        let template = match nth {
            0 => template.with_hot(Hot::Iso { until: last_year(year) }),
            1 => template.with_hot(Hot::Syslog),
            _ => template,
        };
        template.with_weight(ANCHORED_WEIGHT)
    }

    fn unbound(&self, year: i16) -> Template {
        match self.text {
            EPOCH => Template::epoch(EPOCH, false),
            text => Template::known(text, &self.expanded(), year),
        }
    }
}

/// The last year that `%ExY` takes in `year`.
pub(super) fn last_year(year: i16) -> i16 {
    ((year + 3) / 10 * 10 + 9).max(2029)
}

/// The templates used without a `datepattern`: those bound to the beginning first.
pub(super) fn defaults(year: i16) -> Vec<Template> {
    let bound = DEFAULTS
        .iter()
        .enumerate()
        .filter(|(_, default)| default.bound_copy)
        .map(|(nth, d)| d.bound(nth, year));
    bound.chain(DEFAULTS.iter().map(|default| default.unbound(year))).collect()
}

/// The templates that one entry of `datepattern` asks for.
pub(super) fn entry(text: &str, year: i16) -> Result<Vec<Template>, DateFault> {
    // Keywords are deaf to case, unless there are codes, which are not.
    let keyword = if text.contains('%') { text.to_owned() } else { text.to_ascii_uppercase() };
    match keyword.as_str() {
        "{DEFAULT}" => return Ok(defaults(year)),
        "{^LN-BEG}" => {
            let bound = DEFAULTS.iter().enumerate().map(|(nth, default)| {
                if default.bound_copy { default.bound(nth, year) } else { default.unbound(year) }
            });
            let (anchored, rest): (Vec<_>, Vec<_>) =
                bound.partition(|template| template.name.starts_with("{^LN-BEG}"));
            return Ok(anchored.into_iter().chain(rest).collect());
        }
        "{NONE}" => return Ok(vec![Template::pattern(text, "^()**", false, year)?]),
        "EPOCH" => return Ok(vec![Template::epoch(text, false)]),
        "LEPOCH" => return Ok(vec![Template::epoch(text, true)]),
        _ => {}
    }
    let mut body = text;
    let mut start = "";
    let mut bound = true;
    if keyword.starts_with("{^LN-BEG}") {
        body = &text["{^LN-BEG}".len()..];
        start = LINE_BEGIN;
    } else if keyword.starts_with("{UNB}") {
        body = &text["{UNB}".len()..];
        bound = false;
    }
    let upper = if body.contains('%') { body.to_owned() } else { body.to_ascii_uppercase() };
    let (epoch, caret) = match upper.strip_prefix('^') {
        Some(rest) if start.is_empty() => (rest, LINE_BEGIN),
        _ => (upper.as_str(), start),
    };
    let whole = match epoch {
        "EPOCH" => Some(EPOCH_PATTERN),
        "LEPOCH" => Some(LONG_EPOCH_PATTERN),
        "TAI64N" => Some(TAI64N_PATTERN),
        _ => None,
    };
    if let Some(pattern) = whole {
        return Ok(vec![Template::pattern(text, &format!("{caret}{pattern}"), bound, year)?]);
    }
    let body = replace_keyword(body, "{EPOCH}", EPOCH_PATTERN);
    let body = replace_keyword(&body, "{LEPOCH}", LONG_EPOCH_PATTERN);
    if replace_keyword(&body, "{DATE}", "") == body {
        return Ok(vec![Template::pattern(text, &format!("{start}{body}"), bound, year)?]);
    }
    // With other text around it, neither Unix time nor TAI64N takes part.
    let alone = body.eq_ignore_ascii_case("{DATE}");
    DEFAULTS
        .iter()
        .filter(|default| alone || !matches!(default.text, EPOCH | TAI64N))
        .map(|default| {
            let date = default.within();
            let text = replace_keyword(&body, "{DATE}", &format!("(?:{date})"));
            Template::pattern(&text, &format!("{start}{text}"), bound, year)
        })
        .collect()
}

/// `text` with `keyword` replaced, in any case unless there are codes in the text.
fn replace_keyword(text: &str, keyword: &str, by: &str) -> String {
    let upper = if text.contains('%') { text.to_owned() } else { text.to_ascii_uppercase() };
    let mut out = String::new();
    let mut from = 0;
    while let Some(at) = upper[from..].find(keyword) {
        out.push_str(&text[from..from + at]);
        out.push_str(by);
        from += at + keyword.len();
    }
    out.push_str(&text[from..]);
    out
}
