//! Single options as commands set them, read by what reads the files.
use std::path::Path;

use super::{
    Ignore, Increment, JailName, JailSettings, JournalTerms, Problem, ReadFault, Severity, Tree,
    ignore, ignorecommand, journal, load, params, seconds, text::Text,
};

/// A jail that was made by a command: nothing but what no file says.
///
/// In a fail2ban tree it counts IPv6 addresses one by one, as every jail there.
pub fn bare_jail(name: &str, fail2ban_tree: bool) -> Option<JailSettings> {
    let jail = read("", fail2ban_tree).ok()?;
    Some(JailSettings { name: JailName::new(name), place: None, ..jail })
}

/// The ban times that these options `bantime.…` make, given without that word.
///
/// # Errors
/// What is wrong with one of them.
pub fn increment(options: &[(String, String)]) -> Result<Option<Increment>, Problem> {
    let mut lines = String::new();
    for (name, value) in options {
        let value = value.replace('%', "%%").replace(['\n', '\r'], " ");
        lines += &format!("bantime.{name} = {value}\n");
    }
    Ok(read(&lines, true)?.increment)
}

/// One entry of `ignoreip`.
///
/// # Errors
/// When it is neither an address, a network nor a name.
pub fn ignored(word: &str) -> Result<Ignore, ignore::AddressError> {
    ignore::entry(word)
}

/// The groups of a `journalmatch` whose words were split already.
///
/// # Errors
/// What is wrong with one of them, in words.
pub fn journal_matches(words: &[String]) -> Result<Vec<JournalTerms>, String> {
    journal::groups(words.iter().cloned()).map_err(|error| error.to_string())
}

/// Splits a line as a shell does; `None` where a quote is never closed.
pub fn shell_words(line: &str) -> Option<Vec<String>> {
    journal::shell_words(line).ok()
}

/// `ignorecache`: its key, the most entries, and for how many seconds; `None` where it is off or makes no sense.
pub fn ignore_cache(text: &str) -> Option<(String, i64, f64)> {
    let call = params::read(&Text::new(&format!("cache[{text}]"), None)).ok()?;
    let option = |name: &str| call.params.get(name).map(Text::as_str);
    let most = option("max-count").map_or(Some(100), |most| most.trim().parse().ok())?;
    let longest = option("max-time").map_or(Some(300.0), |time| seconds(time).ok())?;
    Some((option("key")?.to_owned(), most, longest))
}

/// An `ignorecommand`; none where it is empty.
///
/// # Errors
/// When it has a tag that nobody fills in.
pub fn ignore_command(text: &str) -> Result<Option<String>, String> {
    let command = text.trim();
    match ignorecommand::unknown_tag(command) {
        Some(tag) => Err(format!("`<{tag}>` is not known in `ignorecommand`")),
        None => Ok((!command.is_empty()).then(|| command.to_owned())),
    }
}

/// A tree of one jail.
struct OneJail {
    jail: String,
    own: bool,
}

impl Tree for OneJail {
    fn root(&self) -> &Path {
        Path::new("/")
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(match file.to_str() {
            Some("/jail.conf") => Some(self.jail.clone().into_bytes()),
            Some("/fail2xdp.conf") if self.own => Some(b"[Definition]\n".to_vec()),
            _ => None,
        })
    }

    fn list(&self, _: &Path) -> Result<Vec<String>, ReadFault> {
        Ok(Vec::new())
    }
}

fn read(lines: &str, fail2ban_tree: bool) -> Result<JailSettings, Problem> {
    let tree = OneJail { jail: format!("[j]\nenabled = true\n{lines}"), own: !fail2ban_tree };
    let mut problems = match load(&tree) {
        Ok(mut loaded) if !loaded.settings.jails.is_empty() => {
            return Ok(loaded.settings.jails.remove(0));
        }
        Ok(loaded) => loaded.problems,
        Err(problems) => problems,
    };
    problems.retain(|problem| problem.severity == Severity::Error);
    Err(problems.pop().unwrap_or_else(|| Problem {
        severity: Severity::Error,
        jail: None,
        place: None,
        what: "it cannot be read".to_owned(),
        remedy: String::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BanTime;

    #[test]
    fn a_jail_without_a_file_has_the_defaults() {
        let jail = bare_jail("it's [new]", false).expect("it holds together");
        assert_eq!((jail.name.as_str(), jail.max_retry, jail.ipv6_prefix), ("it's [new]", 3, 64));
        assert_eq!((jail.ban_time, jail.scope.is_nothing()), (BanTime::Seconds(600), true));
        assert_eq!(bare_jail("j", true).map(|jail| jail.ipv6_prefix), Some(128));
    }

    #[test]
    fn options_that_grow_bans_are_read_together() {
        let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let on = option("increment", "true");
        let read = increment(&[on.clone(), option("factor", "3"), option("maxtime", "1h")]);
        let read = read.expect("they are right").expect("it is on");
        assert_eq!((read.factor.as_f64(), read.max_time), (3.0, Some(3600.0)));
        assert_eq!(increment(&[option("factor", "3")]), Ok(None));
        assert!(increment(&[on, option("factor", "ten")]).is_err());
    }

    #[test]
    fn a_cache_has_a_key() {
        assert_eq!(
            ignore_cache(r#"key="<ip>", max-count=10, max-time=5m"#),
            Some(("<ip>".to_owned(), 10, 300.0))
        );
        assert_eq!(ignore_cache("max-count=10"), None);
    }
}
