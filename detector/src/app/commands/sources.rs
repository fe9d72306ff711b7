//! What changes where a jail reads: its settings change, and the readers begin anew where they were.
use std::path::Path;

use super::{Daemon, Fault};
use crate::{
    config::{self, JailName, JailSettings, JournalSettings, LogPath, SourceSettings, Value},
    control::command::Class,
};

impl Daemon {
    /// Readers start anew: jails, patterns or sources have changed.
    pub(super) async fn read_anew(&mut self) {
        let positions = self.stop_readers().await;
        self.start_readers(positions);
    }

    /// The engine goes on under the settings as they are now.
    pub(super) fn count_anew(&mut self) {
        let jails = self.settings.jails.clone();
        self.jails_change(&jails, &[]);
        self.actions_change(false, &[]);
        self.look_up_ignored();
    }

    pub(super) async fn add_jail(&mut self, name: &str, backend: &str) -> Result<Value, Fault> {
        if self.jail_named(name).is_ok() {
            return Err(Fault::new(Class::DuplicateJail, name));
        }
        let source = match backend.split('[').next().unwrap_or_default().to_lowercase().as_str() {
            "auto" | "polling" | "pyinotify" | "gamin" => SourceSettings::Nothing,
            "systemd" => SourceSettings::Journal(JournalSettings::default()),
            other => {
                return Err(Fault::value(format!(
                    "Unknown backend {other}. Must be among ['pyinotify', 'gamin', 'polling', 'systemd'] or 'auto'"
                )));
            }
        };
        let jail = config::bare_jail(name, self.settings.fail2ban_tree)
            .ok_or_else(|| Fault::plain("the jail cannot be made"))?;
        self.settings.jails.push(JailSettings { source, ..jail });
        self.told.idle.insert(JailName::new(name));
        self.count_anew();
        Ok(name.into())
    }

    pub(super) async fn start_jail(&mut self, name: &str) -> Result<Value, Fault> {
        let jail = self.jail_named(name)?;
        self.set_idle(&jail, false).await?;
        Ok(Value::Nothing)
    }

    pub(super) async fn stop_jail(&mut self, name: &str) -> Result<Value, Fault> {
        let jail = self.jail_named(name)?;
        self.keep_jails(|other| *other != jail).await;
        Ok(Value::Nothing)
    }

    /// Removes all other jails, and lifts their bans.
    pub(super) async fn keep_jails(&mut self, keep: impl Fn(&JailName) -> bool) {
        self.settings.jails.retain(|jail| keep(&jail.name));
        self.told.idle.retain(keep);
        self.read_anew().await;
        self.count_anew();
    }

    pub(super) async fn set_idle(&mut self, jail: &JailName, idle: bool) -> Result<Value, Fault> {
        let changed = match idle {
            true => self.told.idle.insert(jail.clone()),
            false => self.told.idle.remove(jail),
        };
        if changed {
            self.read_anew().await;
        }
        Ok(idle.into())
    }

    pub(super) async fn add_log_path(
        &mut self,
        name: &JailName,
        path: &str,
        tail: bool,
    ) -> Result<Value, Fault> {
        let entry = LogPath { pattern: glob::Pattern::escape(path), tail, place: None };
        let read = self.log_paths(name);
        let jail = self.settings.jails.iter_mut().find(|jail| jail.name == *name);
        let Some(jail) = jail else { return Err(Fault::no_jail(name.as_str())) };
        // Who reads the journal reads no files: fail2ban takes the command and does nothing.
        let reads_files = !matches!(jail.source, SourceSettings::Journal(_));
        if reads_files && !contains(&read, path) {
            if !Path::new(path).exists() {
                return Err(Fault::new(Class::NoFile, path));
            }
            match &mut jail.source {
                SourceSettings::Files { paths, .. } | SourceSettings::Auto { paths, .. } => {
                    paths.push(entry);
                }
                source => {
                    *source =
                        SourceSettings::Files { paths: vec![entry], encoding: "auto".to_owned() };
                }
            }
            self.read_anew().await;
            self.first_look().await;
        }
        Ok(self.log_paths(name))
    }

    pub(super) async fn remove_log_path(
        &mut self,
        name: &JailName,
        path: &str,
    ) -> Result<Value, Fault> {
        let read = self.log_paths(name);
        let jail = self.settings.jails.iter_mut().find(|jail| jail.name == *name);
        let Some(jail) = jail else { return Err(Fault::no_jail(name.as_str())) };
        let (SourceSettings::Files { paths, .. } | SourceSettings::Auto { paths, .. }) =
            &mut jail.source
        else {
            return Ok(read);
        };
        if contains(&read, path) {
            let matches = |entry: &LogPath| {
                entry.pattern == path
                    || glob::Pattern::new(&entry.pattern).is_ok_and(|it| it.matches(path))
            };
            // Of a glob the other files that it names now are left.
            let globbed: Vec<LogPath> = paths.extract_if(.., |entry| matches(entry)).collect();
            if let (Value::List(read), Some(entry)) = (&read, globbed.first()) {
                let others = read.iter().filter_map(|file| match file {
                    Value::Text(file) if file != path => Some(file.as_str()),
                    _ => None,
                });
                let of_glob = others
                    .filter(|file| globbed.iter().any(|it| glob_matches(&it.pattern, file)))
                    .map(|file| LogPath { pattern: glob::Pattern::escape(file), ..entry.clone() });
                paths.extend(of_glob);
            }
            if paths.is_empty() {
                jail.source = SourceSettings::Nothing;
            }
            self.read_anew().await;
            self.first_look().await;
        }
        Ok(self.log_paths(name))
    }

    pub(super) async fn change_matches(
        &mut self,
        name: &JailName,
        change: impl FnOnce(&mut JournalSettings) -> Result<(), Fault>,
    ) -> Result<Value, Fault> {
        let jail = self.settings.jails.iter_mut().find(|jail| jail.name == *name);
        let Some(jail) = jail else { return Err(Fault::no_jail(name.as_str())) };
        if let SourceSettings::Journal(journal) | SourceSettings::Auto { journal, .. } =
            &mut jail.source
        {
            change(journal)?;
            self.read_anew().await;
        }
        Ok(self.journal_matches(name))
    }
}

fn contains(paths: &Value, path: &str) -> bool {
    matches!(paths, Value::List(paths) if paths.iter().any(|known| *known == Value::from(path)))
}

fn glob_matches(pattern: &str, path: &str) -> bool {
    glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(path))
}
