//! The part of Python's pickle format that fail2ban's clients speak: plain data.
//!
//! Opcodes and their meaning are those of `pickletools` in Python's library. Read are protocols 0 to 5 without anything
//! that names or calls code; written is protocol 2, which every Python and every library of other languages reads.
use std::collections::HashMap;

use super::command::Fault;
use crate::config::Value;

/// Longest message that is read, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Deepest nesting of containers.
pub const MAX_DEPTH: u8 = 16;
/// Bytes that all values of a message may take, those that it repeats by reference counted each time.
pub const MAX_VALUES: usize = 32 << 20;
/// Longest whole number, in bytes of its binary form.
const MAX_NUMBER: usize = 16;
/// What a value takes beside its text, in bytes, about.
const VALUE: usize = 32;

/// Why a message is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// It ends too early.
    #[error("the message is cut short")]
    Short,
    /// More than [`MAX_MESSAGE`] bytes.
    #[error("the message is longer than {MAX_MESSAGE} bytes")]
    Long,
    /// It would name or call code, or do what fail2ban's clients never do.
    #[error("opcode {0:#04x} is not read: only plain data is")]
    Opcode(u8),
    /// More than [`MAX_DEPTH`] containers in one another.
    #[error("more than {MAX_DEPTH} lists in one another")]
    Deep,
    /// More than [`MAX_VALUES`] bytes of values.
    #[error("the values take more than {MAX_VALUES} bytes")]
    Large,
    /// It is no pickle, or one that contradicts itself.
    #[error("it is no pickle: {0}")]
    Wrong(&'static str),
}

/// Reads a message whole.
///
/// # Errors
/// For what is no pickle of plain data, or too much of it.
pub fn read(bytes: &[u8]) -> Result<Value, PickleError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(PickleError::Long);
    }
    let mut reader =
        Reader { rest: bytes, stack: Vec::new(), memo: HashMap::new(), room: MAX_VALUES };
    loop {
        match reader.byte()? {
            b'.' => break,
            opcode => reader.step(opcode)?,
        }
    }
    match reader.stack.as_slice() {
        [Item::Value(..)] => reader.pop(),
        _ => Err(PickleError::Wrong("it leaves not one value")),
    }
}

enum Item {
    /// A value, and how many containers stand in one another in it.
    Value(Value, u8),
    /// Where the items of a container begin.
    Mark,
}

struct Reader<'a> {
    rest: &'a [u8],
    stack: Vec<Item>,
    /// What may be named again, by number; containers may not, as they could hold themselves.
    memo: HashMap<u32, Option<(Value, u8)>>,
    room: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.bytes(1)?[0])
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], PickleError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(PickleError::Short)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A number of so many bytes, the least first.
    fn length(&mut self, width: usize) -> Result<usize, PickleError> {
        let bytes = self.bytes(width)?;
        let number = bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).map_err(|_| PickleError::Short)
    }

    /// A line of text, as protocol 0 has them.
    fn line(&mut self) -> Result<&'a str, PickleError> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or(PickleError::Short)?;
        let line = self.bytes(end + 1)?;
        str::from_utf8(&line[..end]).map_err(|_| PickleError::Wrong("a line is no text"))
    }

    fn take_room(&mut self, bytes: usize) -> Result<(), PickleError> {
        self.room = self.room.checked_sub(bytes).ok_or(PickleError::Large)?;
        Ok(())
    }

    fn push(&mut self, value: Value, depth: u8) -> Result<(), PickleError> {
        if depth > MAX_DEPTH {
            return Err(PickleError::Deep);
        }
        self.take_room(VALUE)?;
        self.stack.push(Item::Value(value, depth));
        Ok(())
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), PickleError> {
        self.take_room(bytes.len())?;
        self.push(Value::Text(String::from_utf8_lossy(bytes).into_owned()), 0)
    }

    fn number(&mut self, number: i128) -> Result<(), PickleError> {
        self.push(Value::Number(number.to_string()), 0)
    }

    fn float(&mut self, number: f64) -> Result<(), PickleError> {
        self.push(Value::Number(format!("{number:?}")), 0)
    }

    fn long(&mut self, length: usize) -> Result<(), PickleError> {
        if length > MAX_NUMBER {
            return Err(PickleError::Wrong("a number is too long"));
        }
        let bytes = self.bytes(length)?;
        let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut whole = [sign; MAX_NUMBER];
        whole[..length].copy_from_slice(bytes);
        self.number(i128::from_le_bytes(whole))
    }

    fn pop_item(&mut self) -> Result<(Value, u8), PickleError> {
        match self.stack.pop() {
            Some(Item::Value(value, depth)) => Ok((value, depth)),
            _ => Err(PickleError::Wrong("a value is missing")),
        }
    }

    fn pop(&mut self) -> Result<Value, PickleError> {
        Ok(self.pop_item()?.0)
    }

    /// The values above the last mark, and the greatest depth of them.
    fn above_mark(&mut self) -> Result<(Vec<Value>, u8), PickleError> {
        let mark = self.stack.iter().rposition(|item| matches!(item, Item::Mark));
        let mark = mark.ok_or(PickleError::Wrong("a mark is missing"))?;
        let (mut values, mut deepest) = (Vec::new(), 0);
        for item in self.stack.drain(mark + 1..) {
            if let Item::Value(value, depth) = item {
                values.push(value);
                deepest = deepest.max(depth);
            }
        }
        self.stack.pop();
        Ok((values, deepest))
    }

    fn tuple(&mut self, length: usize) -> Result<(), PickleError> {
        let (mut values, mut deepest) = (Vec::new(), 0);
        for _ in 0..length {
            let (value, depth) = self.pop_item()?;
            values.push(value);
            deepest = deepest.max(depth);
        }
        values.reverse();
        self.push(Value::Tuple(values), deepest + 1)
    }

    /// Adds to the list below.
    fn append(&mut self, more: Vec<Value>, deepest: u8) -> Result<(), PickleError> {
        match self.stack.last_mut() {
            Some(Item::Value(Value::List(values), depth)) if deepest < MAX_DEPTH => {
                values.extend(more);
                *depth = (*depth).max(deepest + 1);
                Ok(())
            }
            Some(Item::Value(Value::List(_), _)) => Err(PickleError::Deep),
            _ => Err(PickleError::Wrong("there is no list to add to")),
        }
    }

    /// Adds to the dictionary below; names that are no text stand as Python writes them.
    fn set_items(&mut self, flat: Vec<Value>, deepest: u8) -> Result<(), PickleError> {
        let Some(Item::Value(Value::Map(entries), depth)) = self.stack.last_mut() else {
            return Err(PickleError::Wrong("there is no dictionary to add to"));
        };
        if deepest >= MAX_DEPTH {
            return Err(PickleError::Deep);
        }
        *depth = (*depth).max(deepest + 1);
        let mut flat = flat.into_iter();
        while let Some(name) = flat.next() {
            let value = flat.next().ok_or(PickleError::Wrong("a name has no value"))?;
            let name = match name {
                Value::Text(text) => text,
                other => other.to_string(),
            };
            entries.push((name, value));
        }
        Ok(())
    }

    fn memoize(&mut self, number: u32) -> Result<(), PickleError> {
        let known = match self.stack.last() {
            Some(Item::Value(Value::List(_) | Value::Map(_), _)) => None,
            Some(Item::Value(value, depth)) => Some((value.clone(), *depth)),
            _ => return Err(PickleError::Wrong("there is nothing to remember")),
        };
        self.take_room(VALUE + known.as_ref().map_or(0, |(value, _)| size(value)))?;
        self.memo.insert(number, known);
        Ok(())
    }

    fn recall(&mut self, number: u32) -> Result<(), PickleError> {
        let Some(Some((value, depth))) = self.memo.get(&number).cloned() else {
            return Err(PickleError::Wrong("what it names again was never named, or is a list"));
        };
        self.take_room(size(&value))?;
        self.push(value, depth)
    }

    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            // Protocol and frame say nothing that is needed here.
            0x80 => drop(self.bytes(1)?),
            0x95 => drop(self.bytes(8)?),
            b'(' => {
                self.take_room(VALUE)?;
                self.stack.push(Item::Mark);
            }
            b'N' => self.push(Value::Nothing, 0)?,
            0x88 => self.push(Value::Truth(true), 0)?,
            0x89 => self.push(Value::Truth(false), 0)?,
            b'I' => match self.line()? {
                "01" => self.push(Value::Truth(true), 0)?,
                "00" => self.push(Value::Truth(false), 0)?,
                digits => self.digits(digits)?,
            },
            b'L' => {
                let digits = self.line()?;
                self.digits(digits.strip_suffix('L').unwrap_or(digits))?;
            }
            b'J' => {
                let bytes = self.bytes(4)?.try_into().expect("four bytes");
                self.number(i32::from_le_bytes(bytes).into())?;
            }
            b'K' => {
                let number = self.length(1)?;
                self.number(number as i128)?;
            }
            b'M' => {
                let number = self.length(2)?;
                self.number(number as i128)?;
            }
            0x8a => {
                let length = self.length(1)?;
                self.long(length)?;
            }
            0x8b => {
                let length = self.length(4)?;
                self.long(length)?;
            }
            b'F' => {
                let number = self.line()?.trim().parse();
                self.float(number.map_err(|_| PickleError::Wrong("a number is none"))?)?;
            }
            b'G' => {
                let bytes = self.bytes(8)?.try_into().expect("eight bytes");
                self.float(f64::from_be_bytes(bytes))?;
            }
            b'V' | b'S' => {
                let line = self.line()?.trim_matches(['\'', '"']);
                // Text with escapes comes from no client of our days; it is taken as it stands.
                self.text(line.as_bytes())?;
            }
            0x8c | b'U' | b'C' => self.counted(1)?,
            b'X' | b'T' | b'B' => self.counted(4)?,
            0x8d | 0x8e | 0x96 => self.counted(8)?,
            b']' | 0x8f => self.push(Value::List(Vec::new()), 1)?,
            b'}' => self.push(Value::Map(Vec::new()), 1)?,
            b')' => self.push(Value::Tuple(Vec::new()), 1)?,
            b'l' | 0x91 => {
                let (values, depth) = self.above_mark()?;
                self.push(Value::List(values), depth + 1)?;
            }
            b't' => {
                let (values, depth) = self.above_mark()?;
                self.push(Value::Tuple(values), depth + 1)?;
            }
            0x85..=0x87 => self.tuple(usize::from(opcode - 0x84))?,
            b'd' => {
                let (flat, depth) = self.above_mark()?;
                self.push(Value::Map(Vec::new()), 1)?;
                self.set_items(flat, depth)?;
            }
            b'a' => {
                let (value, depth) = self.pop_item()?;
                self.append(vec![value], depth)?;
            }
            b'e' | 0x90 => {
                let (values, depth) = self.above_mark()?;
                self.append(values, depth)?;
            }
            b's' => {
                let ((value, one), (name, other)) = (self.pop_item()?, self.pop_item()?);
                self.set_items(vec![name, value], one.max(other))?;
            }
            b'u' => {
                let (flat, depth) = self.above_mark()?;
                self.set_items(flat, depth)?;
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.above_mark()?),
            b'p' => {
                let number = self.named()?;
                self.memoize(number)?;
            }
            b'q' => {
                let number = self.length(1)?;
                self.memoize(number as u32)?;
            }
            b'r' => {
                let number = self.length(4)?;
                self.memoize(number as u32)?;
            }
            0x94 => self.memoize(self.memo.len() as u32)?,
            b'g' => {
                let number = self.named()?;
                self.recall(number)?;
            }
            b'h' => {
                let number = self.length(1)?;
                self.recall(number as u32)?;
            }
            b'j' => {
                let number = self.length(4)?;
                self.recall(number as u32)?;
            }
            other => return Err(PickleError::Opcode(other)),
        }
        Ok(())
    }

    /// Text behind its length.
    fn counted(&mut self, width: usize) -> Result<(), PickleError> {
        let length = self.length(width)?;
        let bytes = self.bytes(length)?;
        self.text(bytes)
    }

    fn digits(&mut self, digits: &str) -> Result<(), PickleError> {
        match digits.trim().parse::<i128>() {
            Ok(number) => self.number(number),
            Err(_) => Err(PickleError::Wrong("a number is none")),
        }
    }

    fn named(&mut self) -> Result<u32, PickleError> {
        self.line()?.parse().map_err(|_| PickleError::Wrong("a number is none"))
    }
}

/// Bytes that a value takes, about.
fn size(value: &Value) -> usize {
    match value {
        Value::Text(text) | Value::Number(text) => VALUE + text.len(),
        Value::Truth(_) | Value::Nothing => VALUE,
        Value::List(values) | Value::Tuple(values) => {
            VALUE + values.iter().map(size).sum::<usize>()
        }
        Value::Map(entries) => {
            let entry = |(name, value): &(String, Value)| VALUE + name.len() + size(value);
            VALUE + entries.iter().map(entry).sum::<usize>()
        }
    }
}

/// An answer: `(0, value)`, or `(1, exception)`.
pub fn answer(answer: &Result<Value, Fault>) -> Vec<u8> {
    let mut out = vec![0x80, 2];
    match answer {
        Ok(value) => {
            write_number(0, &mut out);
            write(value, &mut out);
        }
        Err(fault) => {
            write_number(1, &mut out);
            let (module, name) = fault.class.python();
            out.extend_from_slice(format!("c{module}\n{name}\n").as_bytes());
            write(&Value::Tuple(fault.arguments()), &mut out);
            out.push(b'R');
        }
    }
    out.extend_from_slice(&[0x86, b'.']);
    out
}

/// A message that is one value.
pub fn message(value: &Value) -> Vec<u8> {
    let mut out = vec![0x80, 2];
    write(value, &mut out);
    out.push(b'.');
    out
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Text(text) => {
            out.push(b'X');
            // A text beyond 4 GiB would not fit in memory twice.
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        Value::Number(text) => match (text.parse::<i128>(), text.parse::<f64>()) {
            (Ok(number), _) => write_number(number, out),
            (_, Ok(number)) => {
                out.push(b'G');
                out.extend_from_slice(&number.to_be_bytes());
            }
            _ => write(&Value::Text(text.clone()), out),
        },
        Value::Truth(truth) => out.push(if *truth { 0x88 } else { 0x89 }),
        Value::Nothing => out.push(b'N'),
        Value::List(values) => {
            out.extend_from_slice(b"](");
            values.iter().for_each(|value| write(value, out));
            out.push(b'e');
        }
        Value::Tuple(values) => {
            out.push(b'(');
            values.iter().for_each(|value| write(value, out));
            out.push(b't');
        }
        Value::Map(entries) => {
            out.extend_from_slice(b"}(");
            for (name, value) in entries {
                write(&Value::Text(name.clone()), out);
                write(value, out);
            }
            out.push(b'u');
        }
    }
}

fn write_number(number: i128, out: &mut Vec<u8>) {
    match i32::try_from(number) {
        Ok(number) => {
            out.push(b'J');
            out.extend_from_slice(&number.to_le_bytes());
        }
        Err(_) => {
            out.extend_from_slice(&[0x8a, MAX_NUMBER as u8]);
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
