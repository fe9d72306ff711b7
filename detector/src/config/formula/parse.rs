//! Words become a tree, by Python's precedence.
use super::{
    FormulaError, MAX_DEPTH, Node,
    functions::{self, Function},
    lex::{Token, Word},
    value::{Binary, Compare, Value},
};

/// Items of a list, and arguments of a call.
const MOST_ITEMS: usize = 100;

/// From the loosest to the tightest; those of one level are taken from the left.
const LEVELS: [&[(&str, Binary)]; 6] = [
    &[("|", Binary::Or)],
    &[("^", Binary::Xor)],
    &[("&", Binary::And)],
    &[("<<", Binary::Left), (">>", Binary::Right)],
    &[("+", Binary::Plus), ("-", Binary::Minus)],
    &[("*", Binary::Times), ("/", Binary::Divided), ("//", Binary::Floored), ("%", Binary::Modulo)],
];

const COMPARED: [(&str, Compare); 6] = [
    ("<", Compare::Less),
    ("<=", Compare::LessOrEqual),
    (">", Compare::Greater),
    (">=", Compare::GreaterOrEqual),
    ("==", Compare::Equal),
    ("!=", Compare::Unequal),
];

/// Reads all of the words; with `ban` the names of a ban are known.
pub(super) fn formula(tokens: &[Token], ban: bool) -> Result<Node, FormulaError> {
    let mut parser = Parser { tokens, depth: 0, ban };
    let node = parser.condition()?;
    match parser.peek() {
        Word::End => Ok(node),
        _ => Err(parser.unexpected("an operator or the end")),
    }
}

struct Parser<'t> {
    /// The last is always `End`.
    tokens: &'t [Token],
    depth: usize,
    ban: bool,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> &'t Word {
        &self.tokens[0].word
    }

    fn step(&mut self) {
        if self.tokens.len() > 1 {
            self.tokens = &self.tokens[1..];
        }
    }

    fn wrong(&self, why: String) -> FormulaError {
        FormulaError { at: self.tokens[0].at, why }
    }

    fn unexpected(&self, wanted: &str) -> FormulaError {
        self.wrong(format!("{} where {wanted} should be", self.peek()))
    }

    fn takes(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Word::Sign(it) if *it == sign);
        if found {
            self.step();
        }
        found
    }

    fn takes_name(&mut self, name: &str) -> bool {
        let found = matches!(self.peek(), Word::Name(it) if it == name);
        if found {
            self.step();
        }
        found
    }

    fn wants(&mut self, sign: &str) -> Result<(), FormulaError> {
        if self.takes(sign) { Ok(()) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    /// One level deeper, which has a bound: the reader calls itself.
    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, FormulaError>,
    ) -> Result<T, FormulaError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.wrong(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn condition(&mut self) -> Result<Node, FormulaError> {
        self.deeper(|this| {
            let then = this.either()?;
            if !this.takes_name("if") {
                return Ok(then);
            }
            let condition = Box::new(this.either()?);
            if !this.takes_name("else") {
                return Err(this.unexpected("`else`"));
            }
            let otherwise = Box::new(this.condition()?);
            Ok(Node::If { condition, then: Box::new(then), otherwise })
        })
    }

    fn either(&mut self) -> Result<Node, FormulaError> {
        let mut node = self.both()?;
        while self.takes_name("or") {
            node = Node::Or(Box::new(node), Box::new(self.both()?));
        }
        Ok(node)
    }

    fn both(&mut self) -> Result<Node, FormulaError> {
        let mut node = self.negated()?;
        while self.takes_name("and") {
            node = Node::And(Box::new(node), Box::new(self.negated()?));
        }
        Ok(node)
    }

    fn negated(&mut self) -> Result<Node, FormulaError> {
        if self.takes_name("not") {
            return self.deeper(|this| Ok(Node::Not(Box::new(this.negated()?))));
        }
        let first = self.binary(&LEVELS)?;
        let mut rest = Vec::new();
        while let Some(how) = self.compared()? {
            rest.push((how, self.binary(&LEVELS)?));
        }
        Ok(if rest.is_empty() { first } else { Node::Compared(Box::new(first), rest) })
    }

    fn compared(&mut self) -> Result<Option<Compare>, FormulaError> {
        if self.takes_name("in") {
            return Ok(Some(Compare::In));
        }
        if self.takes_name("not") {
            let found = self.takes_name("in");
            return if found { Ok(Some(Compare::NotIn)) } else { Err(self.unexpected("`in`")) };
        }
        Ok(COMPARED.iter().find(|(sign, _)| self.takes(sign)).map(|(_, how)| *how))
    }

    fn binary(&mut self, levels: &[&[(&str, Binary)]]) -> Result<Node, FormulaError> {
        let Some((level, tighter)) = levels.split_first() else { return self.signed() };
        let mut node = self.binary(tighter)?;
        while let Some((_, how)) = level.iter().find(|(sign, _)| self.takes(sign)) {
            node = Node::Binary(*how, Box::new(node), Box::new(self.binary(tighter)?));
        }
        Ok(node)
    }

    fn signed(&mut self) -> Result<Node, FormulaError> {
        for (sign, make) in [
            ("-", Node::Negative as fn(Box<Node>) -> Node),
            ("+", Node::Positive),
            ("~", Node::Inverted),
        ] {
            if self.takes(sign) {
                return self.deeper(|this| Ok(make(Box::new(this.signed()?))));
            }
        }
        let base = self.primary()?;
        if !self.takes("**") {
            return Ok(base);
        }
        // From the right, and tighter than a sign before it.
        let exponent = self.deeper(Self::signed)?;
        Ok(Node::Binary(Binary::Power, Box::new(base), Box::new(exponent)))
    }

    fn primary(&mut self) -> Result<Node, FormulaError> {
        let mut node = match self.peek() {
            Word::Number(value) => {
                self.step();
                Node::Constant(value.clone())
            }
            Word::Name(name) => self.named(name)?,
            Word::Sign("(") => {
                self.step();
                if self.takes(")") {
                    return Ok(Node::List(Vec::new()));
                }
                let first = self.condition()?;
                if self.takes(",") {
                    Node::List(self.items(vec![first], ")")?)
                } else {
                    self.wants(")")?;
                    first
                }
            }
            Word::Sign("[") => {
                self.step();
                Node::List(self.items(Vec::new(), "]")?)
            }
            Word::Sign(_) | Word::End => return Err(self.unexpected("a number")),
        };
        while self.takes("[") {
            let index = self.condition()?;
            self.wants("]")?;
            node = Node::Item(Box::new(node), Box::new(index));
        }
        Ok(node)
    }

    /// The rest of a list up to its bracket; a comma may stand before that.
    fn items(&mut self, mut items: Vec<Node>, end: &str) -> Result<Vec<Node>, FormulaError> {
        loop {
            if self.takes(end) {
                return Ok(items);
            }
            if items.len() >= MOST_ITEMS {
                return Err(self.wrong(format!("more than {MOST_ITEMS} values")));
            }
            items.push(self.condition()?);
            if !self.takes(",") {
                self.wants(end)?;
                return Ok(items);
            }
        }
    }

    fn named(&mut self, name: &'t str) -> Result<Node, FormulaError> {
        let start = self.tokens;
        let wrong = |why: String| Err(FormulaError { at: start[0].at, why });
        self.step();
        let member = if matches!(name, "ban" | "math" | "random") {
            self.wants(".")?;
            match self.peek() {
                Word::Name(member) => {
                    self.step();
                    Some(member.as_str())
                }
                _ => return Err(self.unexpected("a name")),
            }
        } else {
            None
        };
        match (name, member) {
            ("True", None) => return Ok(Node::Constant(Value::from(true))),
            ("False", None) => return Ok(Node::Constant(Value::from(false))),
            ("ban", Some("Time")) if self.ban => return Ok(Node::Time),
            ("ban", Some("Count")) if self.ban => return Ok(Node::Count),
            ("banFactor", None) if self.ban => return Ok(Node::Factor),
            ("math", Some(member)) => {
                if let Some(value) = functions::constant(member) {
                    return Ok(Node::Constant(Value::Float(value)));
                }
            }
            _ => {}
        }
        let whole = member.map_or(name.to_owned(), |member| format!("{name}.{member}"));
        let Some(function) = Function::of_name(&whole) else {
            let known = match name {
                "ban" if self.ban => ": a ban has `ban.Time` and `ban.Count`",
                _ => "",
            };
            return wrong(format!("`{whole}` is not known here{known}"));
        };
        if !self.takes("(") {
            return Err(self.unexpected("`(`"));
        }
        let arguments = self.items(Vec::new(), ")")?;
        if !function.takes(arguments.len()) {
            return wrong(format!("`{whole}` does not take {} values", arguments.len()));
        }
        Ok(Node::Call(function, arguments))
    }
}
