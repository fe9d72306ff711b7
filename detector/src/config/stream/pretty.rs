//! Commands over several lines, as Python's `pprint` lays them out with indentation 2.
use super::Value;

/// Columns of a line; fail2ban asks for so many.
const WIDTH: usize = 1_000;
const INDENT: usize = 2;

impl Value {
    /// The value over as many lines as it needs, without a line end behind it.
    pub fn pretty(&self) -> String {
        let mut out = String::new();
        self.lay_out(0, 0, &mut out);
        out
    }

    /// Writes the value, which begins in column `indent` and has `behind` characters after it.
    fn lay_out(&self, indent: usize, behind: usize, out: &mut String) {
        let flat = self.to_string();
        let room = WIDTH.saturating_sub(indent + behind);
        match self {
            Value::List(values) if flat.chars().count() > room => {
                out.push('[');
                out.push_str(&" ".repeat(INDENT - 1));
                let indent = indent + INDENT;
                for (nth, value) in values.iter().enumerate() {
                    if nth > 0 {
                        out.push_str(",\n");
                        out.push_str(&" ".repeat(indent));
                    }
                    let last = nth + 1 == values.len();
                    value.lay_out(indent, if last { behind + 1 } else { 1 }, out);
                }
                out.push(']');
            }
            Value::Text(text) if flat.chars().count() > room => {
                out.push_str(
                    &pieces(text, indent, behind).join(&format!("\n{}", " ".repeat(indent))),
                );
            }
            _ => out.push_str(&flat),
        }
    }
}

/// A long text in literals that Python joins: a line each, and where one is too long, as many words as fit.
fn pieces(text: &str, indent: usize, behind: usize) -> Vec<String> {
    let literal = |text: &str| Value::from(text).to_string();
    let room = WIDTH.saturating_sub(indent);
    let mut pieces = Vec::new();
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let last_line = lines.peek().is_none();
        let whole = literal(line);
        if whole.chars().count() <= room.saturating_sub(if last_line { behind } else { 0 }) {
            pieces.push(whole);
            continue;
        }
        let mut current = String::new();
        let mut words = words(line).into_iter().peekable();
        while let Some(word) = words.next() {
            let last = last_line && words.peek().is_none();
            let candidate = format!("{current}{word}");
            let fits = room.saturating_sub(if last { behind } else { 0 });
            if literal(&candidate).chars().count() > fits {
                if !current.is_empty() {
                    pieces.push(literal(&current));
                }
                current = word.to_owned();
            } else {
                current = candidate;
            }
        }
        if !current.is_empty() {
            pieces.push(literal(&current));
        }
    }
    pieces
}

/// Words, each with the blanks behind it.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut blank) = (0, false);
    for (at, c) in line.char_indices() {
        if blank && !c.is_whitespace() {
            words.push(&line[start..at]);
            start = at;
        }
        blank = c.is_whitespace();
    }
    words.push(&line[start..]);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_on_one_line_and_the_rest_is_broken_up() {
        let short = Value::List(vec!["set".into(), "j".into(), Value::Nothing]);
        assert_eq!(short.pretty(), "['set', 'j', None]");
        let long = "x".repeat(600);
        let list =
            Value::List(vec!["a".into(), Value::List(vec![(&*long).into(), (&*long).into()])]);
        assert_eq!(list.pretty(), format!("[ 'a',\n  [ '{long}',\n    '{long}']]"));
    }

    #[test]
    fn a_text_longer_than_a_line_is_written_in_pieces() {
        let (one, two) = ("x".repeat(700), "y".repeat(700));
        let list = Value::List(vec![(&*format!("{one} {two}\nlast")).into()]);
        assert_eq!(list.pretty(), format!("[ '{one} '\n  '{two}\\n'\n  'last']"));
    }
}
