//! Refusals as fail2ban's server words them: the class and the arguments of a Python exception.
use std::fmt;

use crate::config::Value;

/// Classes of exceptions that fail2ban's client tells apart, and those whose text shows the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `Exception`: shown by its text alone.
    Exception,
    /// `ValueError`.
    Value,
    /// `IndexError`: words are missing.
    Index,
    /// `KeyError`: its text stands in quotes.
    Key,
    /// `RuntimeError`.
    Runtime,
    /// `LookupError`.
    Lookup,
    /// `FileNotFoundError`, about the file that is named.
    NoFile,
    /// fail2ban's own, for a jail that is not there.
    UnknownJail,
    /// fail2ban's own, for a jail that is there already.
    DuplicateJail,
}

impl Class {
    /// Every class, for reading one back.
    const ALL: [Class; 9] = [
        Class::Exception,
        Class::Value,
        Class::Index,
        Class::Key,
        Class::Runtime,
        Class::Lookup,
        Class::NoFile,
        Class::UnknownJail,
        Class::DuplicateJail,
    ];

    /// The module that defines it, and its name there.
    pub fn python(self) -> (&'static str, &'static str) {
        match self {
            Class::Exception => ("builtins", "Exception"),
            Class::Value => ("builtins", "ValueError"),
            Class::Index => ("builtins", "IndexError"),
            Class::Key => ("builtins", "KeyError"),
            Class::Runtime => ("builtins", "RuntimeError"),
            Class::Lookup => ("builtins", "LookupError"),
            Class::NoFile => ("builtins", "FileNotFoundError"),
            Class::UnknownJail => ("fail2ban.exceptions", "UnknownJailException"),
            Class::DuplicateJail => ("fail2ban.exceptions", "DuplicateJailException"),
        }
    }

    /// The class of that name; what is none is an `Exception`.
    pub fn named(name: &str) -> Class {
        let known = Class::ALL.into_iter().find(|class| class.python().1 == name);
        known.unwrap_or(Class::Exception)
    }
}

/// What strerror(3) says of ENOENT.
const NO_FILE: &str = "No such file or directory";

/// A command that was not carried out; displayed as fail2ban's client prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The exception's class.
    pub class: Class,
    /// What is wrong, or the jail, or the file.
    pub text: String,
}

impl Fault {
    /// An exception of this class.
    pub fn new(class: Class, text: impl Into<String>) -> Fault {
        Fault { class, text: text.into() }
    }

    /// A plain `Exception`.
    pub fn plain(text: impl Into<String>) -> Fault {
        Fault::new(Class::Exception, text)
    }

    /// A `ValueError`.
    pub fn value(text: impl Into<String>) -> Fault {
        Fault::new(Class::Value, text)
    }

    /// Words are missing.
    pub fn too_short() -> Fault {
        Fault::new(Class::Index, "list index out of range")
    }

    /// There is no such jail.
    pub fn no_jail(name: &str) -> Fault {
        Fault::new(Class::UnknownJail, name)
    }

    /// What makes the exception anew.
    pub fn arguments(&self) -> Vec<Value> {
        let text = Value::from(self.text.as_str());
        match self.class {
            Class::NoFile => vec![2.into(), NO_FILE.into(), text],
            _ => vec![text],
        }
    }

    /// The exception's arguments as Python shows them, for the line that the client logs.
    pub fn shown_arguments(&self) -> String {
        let mut arguments = self.arguments();
        // The file is no argument once the exception is made.
        arguments.truncate(2);
        Value::Tuple(arguments).to_string()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        match self.class {
            Class::UnknownJail => write!(f, "Sorry but the jail '{text}' does not exist"),
            Class::DuplicateJail => write!(f, "The jail '{text}' already exists"),
            Class::Index => f.write_str("Sorry but the command is invalid"),
            Class::Key => write!(f, "{}", Value::from(text.as_str())),
            Class::NoFile => write!(f, "[Errno 2] {NO_FILE}: {}", Value::from(text.as_str())),
            Class::Exception | Class::Value | Class::Runtime | Class::Lookup => f.write_str(text),
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_read_as_fail2bans_client_prints_them() {
        for (fault, shown) in [
            (Fault::no_jail("x"), "Sorry but the jail 'x' does not exist"),
            (Fault::too_short(), "Sorry but the command is invalid"),
            (Fault::new(Class::DuplicateJail, "j1"), "The jail 'j1' already exists"),
            (Fault::new(Class::Key, "Invalid Action name: nope"), "'Invalid Action name: nope'"),
            (Fault::new(Class::NoFile, "/x"), "[Errno 2] No such file or directory: '/x'"),
            (Fault::value("not banned: ['192.0.2.1']"), "not banned: ['192.0.2.1']"),
        ] {
            assert_eq!(fault.to_string(), shown);
        }
        assert_eq!(Fault::no_jail("it's").shown_arguments(), "(\"it's\",)");
    }

    #[test]
    fn a_class_is_found_by_its_name() {
        for class in Class::ALL {
            assert_eq!(Class::named(class.python().1), class);
        }
        assert_eq!(Class::named("OSError"), Class::Exception);
    }
}
