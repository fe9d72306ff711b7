//! Reads Python's `re` notation (3.11) into a tree.
use super::{
    PatternError, SyntaxFault,
    syntax::{Class, Greed, Item, Kind, Node, Syntax},
};

/// Groups nested deeper than this are refused: reading and translating recurse.
const MAX_DEPTH: usize = 100;
/// More groups than this are refused; Python itself stopped at 100 until 3.5.
const MAX_GROUPS: u32 = 500;

/// What to take besides the pattern's own flags.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Python's `MULTILINE`.
    pub(crate) lines: bool,
    /// One name may stand for several groups, of which one at the most takes part.
    pub(crate) names_again: bool,
}

/// Reads `pattern`.
pub(crate) fn parse(pattern: &str, options: Options) -> Result<Syntax, PatternError> {
    let mut parser = Parser {
        names_again: options.names_again,
        chars: pattern.chars().collect(),
        at: 0,
        flags: Flags { lines: options.lines, ..Flags::default() },
        groups: 0,
        names: Vec::new(),
        open: Vec::new(),
        depth: 0,
    };
    parser.global_flags()?;
    let root = parser.choice()?;
    if parser.at < parser.chars.len() {
        return Err(parser.fault(SyntaxFault::Unopened));
    }
    let Parser { groups, names, .. } = parser;
    Ok(Syntax { root, groups, names })
}

#[derive(Clone, Copy, Default)]
struct Flags {
    fold: bool,
    lines: bool,
    dot_all: bool,
    verbose: bool,
    ascii: bool,
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    flags: Flags,
    groups: u32,
    names: Vec<(Box<str>, u32)>,
    names_again: bool,
    /// Groups not closed yet: a pattern may not refer to them.
    open: Vec<u32>,
    depth: usize,
}

type Parsed<T> = Result<T, PatternError>;

impl Parser {
    fn fault(&self, fault: SyntaxFault) -> PatternError {
        let near = &self.chars[self.at.saturating_sub(15)..self.chars.len().min(self.at + 10)];
        PatternError::Syntax { fault, at: self.at, near: near.iter().collect() }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let char = self.peek()?;
        self.at += 1;
        Some(char)
    }

    /// Steps over `text` if it comes next.
    fn eat(&mut self, text: &str) -> bool {
        let matches =
            text.chars().enumerate().all(|(i, c)| self.chars.get(self.at + i) == Some(&c));
        if matches {
            self.at += text.chars().count();
        }
        matches
    }

    /// Everything up to `end`, which is stepped over.
    fn until(&mut self, end: char) -> Parsed<String> {
        let Some(length) = self.chars[self.at..].iter().position(|&c| c == end) else {
            return Err(self.fault(SyntaxFault::Unclosed));
        };
        let text = self.chars[self.at..self.at + length].iter().collect();
        self.at += length + 1;
        Ok(text)
    }

    /// `(?i)` and the like, which Python takes only at the very start.
    fn global_flags(&mut self) -> Parsed<()> {
        while self.chars[self.at..].starts_with(&['(', '?']) {
            let start = self.at;
            self.at += 2;
            let letters =
                self.chars[self.at..].iter().take_while(|c| c.is_ascii_alphabetic()).count();
            if letters == 0 || self.chars.get(self.at + letters) != Some(&')') {
                self.at = start;
                return Ok(());
            }
            for _ in 0..letters {
                self.flag(true)?;
            }
            self.at += 1;
        }
        Ok(())
    }

    /// One flag letter.
    fn flag(&mut self, on: bool) -> Parsed<()> {
        match self.peek() {
            Some('i') => self.flags.fold = on,
            Some('m') => self.flags.lines = on,
            Some('s') => self.flags.dot_all = on,
            Some('x') => self.flags.verbose = on,
            Some('a') if on => self.flags.ascii = true,
            Some('u') if on => self.flags.ascii = false,
            _ => return Err(self.fault(SyntaxFault::Flag)),
        }
        self.at += 1;
        Ok(())
    }

    fn choice(&mut self) -> Parsed<Node> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fault(SyntaxFault::TooDeep));
        }
        let mut branches = vec![self.sequence()?];
        while self.eat("|") {
            branches.push(self.sequence()?);
        }
        self.depth -= 1;
        Ok(if branches.len() == 1 { branches.remove(0) } else { Node::Choice(branches) })
    }

    fn sequence(&mut self) -> Parsed<Node> {
        let mut parts = Vec::new();
        while let Some(char) = self.peek() {
            match char {
                '|' | ')' => break,
                '#' if self.flags.verbose => while self.next().is_some_and(|c| c != '\n') {},
                c if self.flags.verbose && c.is_ascii_whitespace() => self.at += 1,
                '*' | '+' | '?' => return Err(self.fault(SyntaxFault::NothingToRepeat)),
                _ => {
                    let brace = char == '{';
                    if brace && self.bounds()?.is_some() {
                        return Err(self.fault(SyntaxFault::NothingToRepeat));
                    }
                    if let Some(atom) = self.atom()? {
                        let repeated = self.repeated(atom)?;
                        parts.push(repeated);
                    }
                }
            }
        }
        Ok(match parts.len() {
            0 => Node::Empty,
            1 => parts.remove(0),
            _ => Node::Sequence(parts),
        })
    }

    /// `{m,n}` if it comes next, stepped over; a `{` that counts nothing is a literal.
    fn bounds(&mut self) -> Parsed<Option<(u32, Option<u32>)>> {
        let start = self.at;
        if !self.eat("{") || self.peek() == Some('}') {
            self.at = start;
            return Ok(None);
        }
        let min = self.number()?;
        let max = if self.eat(",") { self.number()? } else { min };
        if !self.eat("}") {
            self.at = start;
            return Ok(None);
        }
        if max.is_some_and(|max| max < min.unwrap_or(0)) {
            return Err(self.fault(SyntaxFault::Bounds));
        }
        Ok(Some((min.unwrap_or(0), max)))
    }

    fn number(&mut self) -> Parsed<Option<u32>> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let digits: String = self.chars[start..self.at].iter().collect();
        if digits.is_empty() {
            return Ok(None);
        }
        digits.parse().map(Some).map_err(|_| self.fault(SyntaxFault::Bounds))
    }

    /// The atom with the repetition behind it, if any.
    fn repeated(&mut self, atom: Node) -> Parsed<Node> {
        if self.flags.verbose {
            while self.peek().is_some_and(|c| c.is_ascii_whitespace()) {
                self.at += 1;
            }
        }
        let Some((min, max)) = self.repetition()? else { return Ok(atom) };
        if matches!(
            atom,
            Node::Start { .. } | Node::End { .. } | Node::VeryEnd | Node::WordEdge { .. }
        ) {
            return Err(self.fault(SyntaxFault::NothingToRepeat));
        }
        let greed = if self.eat("?") {
            Greed::Lazy
        } else if self.eat("+") {
            Greed::Possessive
        } else {
            Greed::Greedy
        };
        if self.repetition()?.is_some() {
            return Err(self.fault(SyntaxFault::MultipleRepeat));
        }
        if !atom.is_zero_width() {
            return Ok(Node::Repeat { inner: Box::new(atom), min, max, greed });
        }
        // Looking twice sees the same; engines refuse to repeat it.
        if min > 0 {
            return Ok(atom);
        }
        let branches = match greed {
            _ if max == Some(0) => return Ok(Node::Empty),
            Greed::Lazy => vec![Node::Empty, atom],
            Greed::Greedy | Greed::Possessive => vec![atom, Node::Empty],
        };
        Ok(Node::Group { number: None, inner: Box::new(Node::Choice(branches)) })
    }

    fn repetition(&mut self) -> Parsed<Option<(u32, Option<u32>)>> {
        Ok(match self.peek() {
            Some('*') => {
                self.at += 1;
                Some((0, None))
            }
            Some('+') => {
                self.at += 1;
                Some((1, None))
            }
            Some('?') => {
                self.at += 1;
                Some((0, Some(1)))
            }
            Some('{') => self.bounds()?,
            _ => None,
        })
    }

    /// One thing that may be repeated; `None` for a comment.
    fn atom(&mut self) -> Parsed<Option<Node>> {
        let flags = self.flags;
        let Some(char) = self.next() else { return Ok(None) };
        Ok(Some(match char {
            '.' => Node::Any { newline: flags.dot_all },
            '^' => Node::Start { lines: flags.lines },
            '$' => Node::End { lines: flags.lines },
            '[' => Node::Class(self.class()?),
            '\\' => self.escape()?,
            '(' => return self.group(),
            char => Node::Literal { char, fold: flags.fold },
        }))
    }

    fn group(&mut self) -> Parsed<Option<Node>> {
        if !self.eat("?") {
            return self.numbered(None).map(Some);
        }
        let Some(kind) = self.next() else { return Err(self.fault(SyntaxFault::Unclosed)) };
        Ok(Some(match kind {
            ':' => Node::Group { number: None, inner: Box::new(self.inside()?) },
            '>' => Node::Atomic(Box::new(self.inside()?)),
            '#' => {
                self.until(')')?;
                return Ok(None);
            }
            '=' | '!' => {
                Node::Look { ahead: true, negated: kind == '!', inner: Box::new(self.inside()?) }
            }
            '<' if matches!(self.peek(), Some('=' | '!')) => {
                let negated = self.next() == Some('!');
                Node::Look { ahead: false, negated, inner: Box::new(self.inside()?) }
            }
            'P' if self.eat("<") => {
                let name = self.until('>')?;
                self.numbered(Some(self.name(&name)?))?
            }
            'P' if self.eat("=") => {
                let name = self.until(')')?;
                self.again(&name)?
            }
            '(' => self.condition()?,
            _ => {
                self.at -= 1;
                self.flagged()?
            }
        }))
    }

    /// The inside of a group up to its `)`, which is stepped over.
    fn inside(&mut self) -> Parsed<Node> {
        let (outer, start) = (self.flags, self.at);
        let inner = self.choice()?;
        self.flags = outer;
        if !self.eat(")") {
            self.at = start;
            return Err(self.fault(SyntaxFault::Unclosed));
        }
        Ok(inner)
    }

    fn numbered(&mut self, name: Option<Box<str>>) -> Parsed<Node> {
        self.groups += 1;
        let number = self.groups;
        if number > MAX_GROUPS {
            return Err(self.fault(SyntaxFault::TooManyGroups));
        }
        if let Some(name) = name {
            if !self.names_again && self.names.iter().any(|(known, _)| *known == name) {
                return Err(self.fault(SyntaxFault::NameTwice(name)));
            }
            self.names.push((name, number));
        }
        self.open.push(number);
        let inner = self.inside()?;
        self.open.pop();
        Ok(Node::Group { number: Some(number), inner: Box::new(inner) })
    }

    fn name(&self, name: &str) -> Parsed<Box<str>> {
        let mut chars = name.chars();
        let starts = chars.next().is_some_and(|c| c == '_' || c.is_alphabetic());
        if starts && chars.all(|c| c == '_' || c.is_alphanumeric()) {
            Ok(name.into())
        } else {
            Err(self.fault(SyntaxFault::Name(name.into())))
        }
    }

    /// The group that a number or name refers to.
    fn known_group(&self, name: &str) -> Parsed<u32> {
        let group = match name.parse::<u32>() {
            Ok(number) => Some(number).filter(|number| (1..=self.groups).contains(number)),
            Err(_) => {
                self.names.iter().find(|(known, _)| **known == *name).map(|(_, number)| *number)
            }
        };
        group.ok_or_else(|| self.fault(SyntaxFault::UnknownGroup(name.into())))
    }

    fn again(&mut self, name: &str) -> Parsed<Node> {
        let group = self.known_group(name)?;
        if self.open.contains(&group) {
            return Err(self.fault(SyntaxFault::OpenGroup));
        }
        Ok(Node::Again { group, fold: self.flags.fold })
    }

    fn condition(&mut self) -> Parsed<Node> {
        let name = self.until(')')?;
        let group = self.known_group(&name)?;
        // Python asks for the group's turn before; no engine of ours remembers it.
        if self.open.contains(&group) {
            return Err(self.fault(SyntaxFault::OpenGroup));
        }
        Ok(match self.inside()? {
            Node::Choice(mut branches) if branches.len() == 2 => {
                let no = branches.pop().unwrap_or(Node::Empty);
                let yes = branches.pop().unwrap_or(Node::Empty);
                Node::Condition { group, yes: Box::new(yes), no: Box::new(no) }
            }
            Node::Choice(_) => return Err(self.fault(SyntaxFault::Condition)),
            yes => Node::Condition { group, yes: Box::new(yes), no: Box::new(Node::Empty) },
        })
    }

    /// `(?i-s:…)`.
    fn flagged(&mut self) -> Parsed<Node> {
        let outer = self.flags;
        let mut on = true;
        loop {
            match self.peek() {
                Some('-') if on => {
                    on = false;
                    self.at += 1;
                }
                Some(':') => {
                    self.at += 1;
                    break;
                }
                Some(')') => return Err(self.fault(SyntaxFault::GlobalFlag)),
                Some(c) if c.is_ascii_alphabetic() => self.flag(on)?,
                _ => return Err(self.fault(SyntaxFault::Extension)),
            }
        }
        let inner = self.inside()?;
        self.flags = outer;
        Ok(Node::Group { number: None, inner: Box::new(inner) })
    }

    /// After a backslash, outside a class.
    fn escape(&mut self) -> Parsed<Node> {
        let flags = self.flags;
        let Some(char) = self.peek() else { return Err(self.fault(SyntaxFault::Escape)) };
        if let Some((kind, negated)) = kind(char) {
            self.at += 1;
            let item = Item::Kind { kind, negated, ascii: flags.ascii };
            return Ok(Node::Class(Class { negated: false, fold: false, items: vec![item] }));
        }
        Ok(match char {
            'A' => {
                self.at += 1;
                Node::Start { lines: false }
            }
            'Z' => {
                self.at += 1;
                Node::VeryEnd
            }
            'b' | 'B' => {
                self.at += 1;
                Node::WordEdge { negated: char == 'B', ascii: flags.ascii }
            }
            '1'..='9' => {
                let digits =
                    self.chars[self.at..].iter().take(3).take_while(|c| c.is_ascii_digit()).count();
                let octal = digits == 3
                    && self.chars[self.at..self.at + 3].iter().all(|c| ('0'..='7').contains(c));
                if octal {
                    return Ok(Node::Literal { char: self.octal(3)?, fold: flags.fold });
                }
                let name: String = self.chars[self.at..self.at + digits.min(2)].iter().collect();
                self.at += name.len();
                self.again(&name)?
            }
            _ => Node::Literal { char: self.escaped_char()?, fold: flags.fold },
        })
    }

    /// An escape that stands for one character, inside a class or outside.
    fn escaped_char(&mut self) -> Parsed<char> {
        let Some(char) = self.next() else { return Err(self.fault(SyntaxFault::Escape)) };
        Ok(match char {
            'a' => '\x07',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' => self.hex(2)?,
            'u' => self.hex(4)?,
            'U' => self.hex(8)?,
            '0'..='7' => {
                self.at -= 1;
                self.octal(3)?
            }
            c if c.is_ascii_alphanumeric() => {
                self.at -= 1;
                return Err(self.fault(SyntaxFault::Escape));
            }
            c => c,
        })
    }

    fn hex(&mut self, length: usize) -> Parsed<char> {
        let digits: String = self.chars[self.at..].iter().take(length).collect();
        let code = (digits.len() == length && digits.chars().all(|c| c.is_ascii_hexdigit()))
            .then(|| u32::from_str_radix(&digits, 16).ok())
            .flatten();
        let char = code.and_then(char::from_u32).ok_or_else(|| self.fault(SyntaxFault::Escape))?;
        self.at += length;
        Ok(char)
    }

    fn octal(&mut self, most: usize) -> Parsed<char> {
        let digits: String = self.chars[self.at..]
            .iter()
            .take(most)
            .take_while(|c| ('0'..='7').contains(*c))
            .collect();
        let code = u8::from_str_radix(&digits, 8).map_err(|_| self.fault(SyntaxFault::Escape))?;
        self.at += digits.len();
        Ok(char::from(code))
    }

    /// After the `[`.
    fn class(&mut self) -> Parsed<Class> {
        let (flags, start) = (self.flags, self.at);
        let negated = self.eat("^");
        let mut items = Vec::new();
        loop {
            if self.peek().is_none() {
                self.at = start;
                return Err(self.fault(SyntaxFault::UnclosedClass));
            }
            if !items.is_empty() && self.eat("]") {
                break;
            }
            let from = self.class_item()?;
            let dash =
                self.peek() == Some('-') && self.chars.get(self.at + 1).is_some_and(|&c| c != ']');
            let (Item::Range(low, _), true) = (from, dash) else {
                if dash {
                    return Err(self.fault(SyntaxFault::Range));
                }
                items.push(from);
                continue;
            };
            self.at += 1;
            match self.class_item()? {
                Item::Range(high, _) if low <= high => items.push(Item::Range(low, high)),
                _ => return Err(self.fault(SyntaxFault::Range)),
            }
        }
        Ok(Class { negated, fold: flags.fold, items })
    }

    fn class_item(&mut self) -> Parsed<Item> {
        let ascii = self.flags.ascii;
        let Some(char) = self.next() else { return Err(self.fault(SyntaxFault::UnclosedClass)) };
        if char != '\\' {
            return Ok(Item::Range(char, char));
        }
        let Some(escaped) = self.peek() else { return Err(self.fault(SyntaxFault::Escape)) };
        if let Some((kind, negated)) = kind(escaped) {
            self.at += 1;
            return Ok(Item::Kind { kind, negated, ascii });
        }
        let char = if escaped == 'b' {
            self.at += 1;
            '\x08'
        } else {
            self.escaped_char()?
        };
        Ok(Item::Range(char, char))
    }
}

/// `\d`, `\S` … : the kind and whether its complement is meant.
fn kind(letter: char) -> Option<(Kind, bool)> {
    Some(match letter {
        'd' => (Kind::Digit, false),
        'D' => (Kind::Digit, true),
        's' => (Kind::Space, false),
        'S' => (Kind::Space, true),
        'w' => (Kind::Word, false),
        'W' => (Kind::Word, true),
        _ => return None,
    })
}
