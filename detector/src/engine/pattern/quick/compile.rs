//! From a pattern's tree to a program.
use super::{
    super::syntax::{Class, Greed, Item, Kind, Node, Syntax},
    Bytes, First, Op, Order, Program, Run, Way,
};

/// Operations of a program at the most.
const MOST_OPS: usize = 4_096;
/// Sets of a program at the most.
const MOST_SETS: usize = 256;

impl Program {
    /// `None` where only another engine can say what Python does: for characters beyond ASCII, repetitions of what can be
    /// empty, and programs that would be too long.
    pub(in super::super) fn new(syntax: &Syntax) -> Option<Program> {
        if syntax.root.beyond_ascii() {
            return None;
        }
        let mut compiler = Compiler::default();
        compiler.node(&syntax.root)?;
        compiler.push(Op::Match)?;
        let Compiler { mut ops, sets } = compiler;
        for at in 0..ops.len() {
            let firsts = match &ops[at] {
                Op::Split { first, second } => {
                    [first_of(&ops, &sets, first.at), first_of(&ops, &sets, second.at)]
                }
                Op::Run(_) => [first_of(&ops, &sets, at + 1); 2],
                _ => continue,
            };
            match &mut ops[at] {
                Op::Split { first, second } => {
                    (first.first, second.first) = (firsts[0], firsts[1]);
                }
                Op::Run(run) => {
                    run.next = firsts[0];
                    // Whatever byte it gave back, nothing behind it could begin with that.
                    let overlaps = bytes_of(&sets[usize::from(run.set)]) & run.next.bytes != 0;
                    if run.order == Order::LongestFirst && run.stop.is_none() && !overlaps {
                        run.order = Order::LongestOnly;
                    }
                }
                _ => {}
            }
        }
        Some(Program {
            first: first_of(&ops, &sets, 0),
            anchored: is_anchored(&syntax.root),
            groups: syntax.groups as usize + 1,
            ops,
            sets,
        })
    }
}

/// Begins with `^` in every branch.
fn is_anchored(node: &Node) -> bool {
    match node {
        Node::Start { lines: false } => true,
        Node::Group { inner, .. } | Node::Atomic(inner) => is_anchored(inner),
        Node::Sequence(parts) => parts.first().is_some_and(is_anchored),
        Node::Choice(branches) => branches.iter().all(is_anchored),
        _ => false,
    }
}

/// What a text can go on with where the program is at `op`.
fn first_of(ops: &[Op], sets: &[[bool; 128]], op: usize) -> First {
    let mut first = First::default();
    let mut seen = vec![false; ops.len()];
    let mut open = vec![op];
    while let Some(at) = open.pop() {
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        let of_set = |set: u16| First { bytes: bytes_of(&sets[usize::from(set)]), end: false };
        let newline = First { bytes: 1 << b'\n', end: true };
        match &ops[at] {
            Op::Byte(byte) => first = first.with(First { bytes: 1 << byte, end: false }),
            Op::Text(text) => first = first.with(First { bytes: 1 << text[0], end: false }),
            Op::Set(set) => first = first.with(of_set(*set)),
            Op::Run(run) => {
                first = first.with(of_set(run.set));
                if run.min == 0 {
                    open.push(at + 1);
                }
            }
            Op::Split { first, second } => open.extend([first.at, second.at]),
            Op::Jump(to) => open.push(*to),
            Op::Condition { no, .. } => open.extend([at + 1, *no]),
            Op::Look { end, .. } => open.push(*end),
            Op::End | Op::LineEnd => first = first.with(newline),
            Op::VeryEnd => first.end = true,
            Op::Save(_)
            | Op::Start
            | Op::LineStart
            | Op::WordEdge { .. }
            | Op::NotInWord
            | Op::Atomic { .. } => open.push(at + 1),
            // What follows a look or an atomic group, or any text again.
            Op::Done | Op::Again { .. } | Op::Match => return First::ANY,
        }
    }
    first
}

fn bytes_of(set: &[bool; 128]) -> Bytes {
    (0..128).filter(|byte| set[*byte]).fold(0, |bytes, byte| bytes | 1 << byte)
}

#[derive(Default)]
struct Compiler {
    ops: Vec<Op>,
    sets: Vec<[bool; 128]>,
}

impl Compiler {
    fn push(&mut self, op: Op) -> Option<usize> {
        self.ops.push(op);
        (self.ops.len() <= MOST_OPS).then_some(self.ops.len() - 1)
    }

    fn node(&mut self, node: &Node) -> Option<()> {
        match node {
            node if node.is_nothing() => {}
            Node::Empty => {}
            Node::Literal { char, fold: false } => {
                self.push(Op::Byte(u8::try_from(*char).ok()?))?;
            }
            Node::Literal { .. } | Node::Any { .. } | Node::Class(_) => {
                let set = self.set(set_of(node)?)?;
                self.push(Op::Set(set))?;
            }
            Node::Start { lines } => {
                self.push(if *lines { Op::LineStart } else { Op::Start })?;
            }
            Node::End { lines } => {
                self.push(if *lines { Op::LineEnd } else { Op::End })?;
            }
            Node::VeryEnd => {
                self.push(Op::VeryEnd)?;
            }
            Node::WordEdge { negated, .. } => {
                self.push(Op::WordEdge { negated: *negated })?;
            }
            Node::NotInWord => {
                self.push(Op::NotInWord)?;
            }
            Node::Group { number: None, inner } => self.node(inner)?,
            Node::Group { number: Some(number), inner } => {
                let slot = 2 * *number as usize;
                self.push(Op::Save(slot))?;
                self.node(inner)?;
                self.push(Op::Save(slot + 1))?;
            }
            Node::Atomic(inner) => self.atomic(|compiler| compiler.node(inner))?,
            Node::Look { ahead, negated, inner } => {
                let back = if *ahead { 0 } else { width(inner)? };
                let at = self.push(Op::Look { back, negated: *negated, end: 0 })?;
                self.node(inner)?;
                self.push(Op::Done)?;
                self.ops[at] = Op::Look { back, negated: *negated, end: self.ops.len() };
            }
            Node::Again { group, fold } => {
                self.push(Op::Again { group: *group as usize, fold: *fold })?;
            }
            Node::Condition { group, yes, no } => {
                let group = *group as usize;
                let condition = self.push(Op::Condition { group, no: 0 })?;
                self.node(yes)?;
                let jump = self.push(Op::Jump(0))?;
                self.ops[condition] = Op::Condition { group, no: self.ops.len() };
                self.node(no)?;
                self.ops[jump] = Op::Jump(self.ops.len());
            }
            Node::Repeat { inner, min, max, greed: Greed::Possessive } => {
                self.atomic(|compiler| compiler.repeat(inner, *min, *max, Greed::Greedy))?;
            }
            Node::Repeat { inner, min, max, greed } => self.repeat(inner, *min, *max, *greed)?,
            Node::Sequence(parts) => self.sequence(parts)?,
            Node::Choice(branches) => {
                let (last, others) = branches.split_last()?;
                let mut jumps = Vec::new();
                for branch in others {
                    let split = self.push(Op::Jump(0))?;
                    self.node(branch)?;
                    jumps.push(self.push(Op::Jump(0))?);
                    self.split(split, split + 1, self.ops.len());
                }
                self.node(last)?;
                for jump in jumps {
                    self.ops[jump] = Op::Jump(self.ops.len());
                }
            }
        }
        Some(())
    }

    /// Literals in a row are compared at once.
    fn sequence(&mut self, parts: &[Node]) -> Option<()> {
        let mut text = Vec::new();
        for part in parts {
            if let Node::Literal { char, fold: false } = part {
                text.push(u8::try_from(*char).ok()?);
                continue;
            }
            self.text(&mut text)?;
            self.node(part)?;
        }
        self.text(&mut text)
    }

    fn text(&mut self, text: &mut Vec<u8>) -> Option<()> {
        match text[..] {
            [] => {}
            [byte] => {
                self.push(Op::Byte(byte))?;
            }
            _ => {
                self.push(Op::Text(text[..].into()))?;
            }
        }
        text.clear();
        Some(())
    }

    fn atomic(&mut self, inner: impl FnOnce(&mut Compiler) -> Option<()>) -> Option<()> {
        let at = self.push(Op::Atomic { end: 0 })?;
        inner(self)?;
        self.push(Op::Done)?;
        self.ops[at] = Op::Atomic { end: self.ops.len() };
        Some(())
    }

    fn split(&mut self, at: usize, first: usize, second: usize) {
        let way = |at: usize| Way { at, first: First::ANY };
        self.ops[at] = Op::Split { first: way(first), second: way(second) };
    }

    fn repeat(&mut self, inner: &Node, min: u32, max: Option<u32>, greed: Greed) -> Option<()> {
        let (stop, one) = match tempered(inner) {
            Some((stop, one)) => (Some(stop), one),
            None => (None, inner),
        };
        if let Some(set) = set_of(one) {
            let set = self.set(set)?;
            let lazy = greed == Greed::Lazy;
            self.push(Op::Run(Run {
                set,
                stop: stop.map(|stop| Box::new(memchr::memmem::Finder::new(&stop).into_owned())),
                min: min as usize,
                max: max.map_or(usize::MAX, |max| max as usize),
                order: if lazy { Order::ShortestFirst } else { Order::LongestFirst },
                next: First::ANY,
            }))?;
            return Some(());
        }
        // Engines differ in what a turn that takes up nothing does.
        if inner.can_be_empty() && max != Some(1) {
            return None;
        }
        for _ in 0..min {
            self.node(inner)?;
        }
        // In the order in which they are tried.
        let ways = |inner: usize, behind: usize| match greed {
            Greed::Lazy => (behind, inner),
            Greed::Greedy | Greed::Possessive => (inner, behind),
        };
        match max {
            None => {
                let split = self.push(Op::Jump(0))?;
                self.node(inner)?;
                self.push(Op::Jump(split))?;
                let (first, second) = ways(split + 1, self.ops.len());
                self.split(split, first, second);
            }
            Some(max) => {
                let mut splits = Vec::new();
                for _ in min..max {
                    splits.push(self.push(Op::Jump(0))?);
                    self.node(inner)?;
                }
                for split in splits {
                    let (first, second) = ways(split + 1, self.ops.len());
                    self.split(split, first, second);
                }
            }
        }
        Some(())
    }

    fn set(&mut self, set: [bool; 128]) -> Option<u16> {
        let at = self.sets.iter().position(|known| *known == set).unwrap_or_else(|| {
            self.sets.push(set);
            self.sets.len() - 1
        });
        if self.sets.len() > MOST_SETS {
            return None;
        }
        u16::try_from(at).ok()
    }
}

/// The bytes of a node that matches exactly one.
fn set_of(node: &Node) -> Option<[bool; 128]> {
    let mut set = [false; 128];
    match node {
        Node::Group { number: None, inner } => return set_of(inner),
        Node::Literal { char, fold } => {
            let byte = u8::try_from(*char).ok().filter(u8::is_ascii)?;
            set[usize::from(byte)] = true;
            if *fold {
                add_other_case(&mut set);
            }
        }
        Node::Any { newline } => {
            set = [true; 128];
            set[usize::from(b'\n')] = *newline;
        }
        Node::Class(class) => set = class_set(class),
        _ => return None,
    }
    Some(set)
}

fn add_other_case(set: &mut [bool; 128]) {
    for lower in b'a'..=b'z' {
        let (lower, upper) = (usize::from(lower), usize::from(lower.to_ascii_uppercase()));
        let both = set[lower] || set[upper];
        (set[lower], set[upper]) = (both, both);
    }
}

fn class_set(class: &Class) -> [bool; 128] {
    let mut set = [false; 128];
    for byte in 0..128u8 {
        set[usize::from(byte)] = class.items.iter().any(|item| match *item {
            Item::Range(from, to) => (from..=to).contains(&char::from(byte)),
            Item::Kind { kind, negated, .. } => is_of(kind, byte) != negated,
        });
    }
    if class.fold {
        add_other_case(&mut set);
    }
    if class.negated {
        set = set.map(|is_in| !is_in);
    }
    set
}

fn is_of(kind: Kind, byte: u8) -> bool {
    match kind {
        Kind::Digit => byte.is_ascii_digit(),
        Kind::Word => byte.is_ascii_alphanumeric() || byte == b'_',
        // Python counts the four separators 0x1c to 0x1f as blanks.
        Kind::Space => matches!(byte, 0x09..=0x0d | 0x1c..=0x20),
    }
}

/// `(?!text)` and one character: a repetition of that ends where the text begins.
fn tempered(node: &Node) -> Option<(Vec<u8>, &Node)> {
    let Node::Sequence(parts) = without_group(node) else { return None };
    let [Node::Look { ahead: true, negated: true, inner }, one] = &parts[..] else { return None };
    let literals = match without_group(inner) {
        Node::Sequence(parts) => &parts[..],
        literal => std::slice::from_ref(literal),
    };
    let byte = |node: &Node| match node {
        Node::Literal { char, fold: false } => u8::try_from(*char).ok().filter(u8::is_ascii),
        _ => None,
    };
    Some((literals.iter().map(byte).collect::<Option<Vec<u8>>>()?, one))
}

fn without_group(node: &Node) -> &Node {
    match node {
        Node::Group { number: None, inner } => without_group(inner),
        node => node,
    }
}

/// How many characters a node takes, where that is always the same.
fn width(node: &Node) -> Option<usize> {
    match node {
        Node::Literal { .. } | Node::Any { .. } | Node::Class(_) => Some(1),
        Node::Group { inner, .. } | Node::Atomic(inner) => width(inner),
        Node::Sequence(parts) => parts.iter().map(width).sum(),
        Node::Choice(branches) => {
            let first = width(branches.first()?)?;
            branches.iter().all(|branch| width(branch) == Some(first)).then_some(first)
        }
        Node::Repeat { inner, min, max, .. } if *max == Some(*min) => {
            Some(width(inner)? * *min as usize)
        }
        node => node.is_zero_width().then_some(0),
    }
}
