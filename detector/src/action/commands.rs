//! One action of commands: what is run for what happens, and how the action stands, as in fail2ban.
use std::time::Duration;

use super::{
    hosts::OwnNames,
    shell::{Mask, Shell, lines, shown},
    tags::{INET4, INET6, NO_FAMILY, Tags, family_of, ip_of},
    wire::{Kind, Level, Standing, Task, Ticket},
};
use crate::{
    command::{Ended, Ran},
    config::{Properties, PropertyError},
    engine::Script,
};

/// The longest `timeout`: a day.
const LONGEST: f64 = 86_400.0;
/// No family: what is the same for all.
const ANY: &str = "";

/// Somebody who hears of each command that was run, and what is to be said.
pub(super) trait Listener {
    /// A command has ended.
    fn ran(&mut self, option: &str, script: &Script, ran: &Ran, mask: &Mask<'_>);
    /// A line for the log.
    fn say(&mut self, level: Level, text: String);
}

/// Why a task failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// In fail2ban's words.
    pub why: String,
    /// To try again would be in vain.
    pub hopeless: bool,
}

/// What an action of commands is.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub properties: Properties,
    /// Seconds that its jail bans for; -1 for ever.
    pub jail_ban_time: i64,
    /// Whether this machine speaks IPv6.
    pub ipv6: bool,
}

/// An action, while one task of it is done.
pub(super) struct Commands<'a> {
    recipe: &'a Recipe,
    standing: &'a mut Standing,
    shell: &'a Shell,
    is_slow: &'a mut bool,
    task: &'a Task,
    own: OwnNames,
    listener: &'a mut (dyn Listener + Send),
    /// The last command could not even be found.
    is_hopeless: bool,
}

/// How the environment is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Environment {
    Sane,
    Broken,
}

impl<'a> Commands<'a> {
    pub(super) async fn new(
        recipe: &'a Recipe,
        shell: &'a Shell,
        standing: &'a mut Standing,
        is_slow: &'a mut bool,
        task: &'a Task,
        listener: &'a mut (dyn Listener + Send),
    ) -> Commands<'a> {
        let own = shell.hosts.own(recipe.properties.mentions("<fq-hostname>")).await;
        Commands { recipe, standing, shell, is_slow, task, own, listener, is_hopeless: false }
    }

    fn properties(&self) -> &'a Properties {
        &self.recipe.properties
    }

    /// Does the task.
    pub(super) async fn perform(mut self) -> Result<(), Failure> {
        let task = self.task;
        let nobody = Ticket::default();
        let ticket = task.ticket.as_deref().unwrap_or(&nobody);
        let is_left_out = ticket.restored && self.properties().is_set("norestored");
        let ip = ip_of(ticket);
        let done = match task.kind {
            Kind::Ban | Kind::Prolong if is_left_out => Ok(true),
            Kind::Ban => self.ban("actionban", ticket).await,
            Kind::Reban if self.properties().has("actionreban") => {
                self.ban("actionreban", ticket).await
            }
            Kind::Reban => self.ban("actionban", ticket).await,
            Kind::Prolong if !self.properties().has("actionprolong") => Ok(true),
            Kind::Prolong => self.process("actionprolong", ticket).await,
            Kind::Unban => self.unban(ticket).await,
            Kind::Start => self.start().await.map(|()| true),
            Kind::Stop => self.stop().await.map(|()| true),
            Kind::Flush => self.flush().await.map(|()| true),
            Kind::Reload => {
                let families = self.standing.started.clone();
                self.operate("actionreload", "reloading", &families).await.1.map(|()| true)
            }
            Kind::Check => self.check_all(true).await.map(|()| true),
        };
        let why = match done {
            Ok(true) => return Ok(()),
            Ok(false) => match task.kind {
                Kind::Prolong => format!("Error prolonging {ip}"),
                Kind::Unban => format!("Error unbanning {ip}"),
                _ => format!("Error banning {ip}"),
            },
            Err(why) => why,
        };
        Err(Failure { why: in_full(task, ticket, &why), hopeless: self.is_hopeless })
    }

    async fn ban(&mut self, option: &str, ticket: &Ticket) -> Result<bool, String> {
        let family = family_of(ticket);
        self.start_for(family).await?;
        let is_done = self.process(option, ticket).await?;
        if is_done {
            add(&mut self.standing.started, family);
            add(&mut self.standing.banned, family);
        }
        Ok(is_done)
    }

    /// Only where there have been bans. Those of an earlier run of the daemon are some: it was stopped without lifting them.
    async fn unban(&mut self, ticket: &Ticket) -> Result<bool, String> {
        let family = family_of(ticket);
        if !has(&self.standing.banned, family) {
            return Ok(true);
        }
        self.start_for(family).await?;
        self.process("actionunban", ticket).await
    }

    /// Starts what starts with the first ban of its family.
    async fn start_for(&mut self, family: &str) -> Result<(), String> {
        if !self.properties().starts_on_demand() || has(&self.standing.started, family) {
            return Ok(());
        }
        let families = match family {
            NO_FAMILY => self.families(),
            family => vec![family.to_owned()],
        };
        self.start_families(&families).await
    }

    async fn start(&mut self) -> Result<(), String> {
        match self.properties().starts_on_demand() {
            true => Ok(()),
            false => self.start_families(&self.families()).await,
        }
    }

    async fn start_families(&mut self, families: &[String]) -> Result<(), String> {
        let (done, result) = self.operate("actionstart", "starting", families).await;
        done.iter().for_each(|family| add(&mut self.standing.started, family));
        result
    }

    async fn stop(&mut self) -> Result<(), String> {
        let families = self.standing.started.clone();
        let (done, result) = self.operate("actionstop", "stopping", &families).await;
        self.standing.started.retain(|family| !done.contains(family));
        result
    }

    async fn flush(&mut self) -> Result<(), String> {
        let is_there = |family: &&String| {
            !self.properties().starts_on_demand() || has(&self.standing.started, family)
        };
        let families: Vec<String> = self.standing.banned.iter().filter(is_there).cloned().collect();
        let (done, result) = self.operate("actionflush", "flushing", &families).await;
        // What starts on demand and has not begun holds nothing.
        self.standing.banned.retain(|it| families.contains(it) && !done.contains(it));
        if result.is_err() {
            let may_repair = self.properties().is_set("actionrepair_on_unban");
            self.check_all(may_repair).await?;
        }
        result
    }

    /// The families that are started for themselves.
    fn families(&self) -> Vec<String> {
        let families: &[&str] = match (self.properties().is_conditional(), self.recipe.ipv6) {
            (false, _) => &[ANY],
            (true, false) => &[INET4],
            (true, true) => &[INET4, INET6],
        };
        families.iter().map(|family| (*family).to_owned()).collect()
    }

    /// Runs a command that is about nobody, for each family; what is the same for two of them once. Answers with the
    /// families for which it is done, and why it failed for others.
    async fn operate(
        &mut self,
        option: &str,
        what: &str,
        families: &[String],
    ) -> (Vec<String>, Result<(), String>) {
        let mut run: Vec<String> = Vec::new();
        if option == "actionstart" {
            // What has started one family has started all of which the same is said.
            for family in &self.standing.started {
                if !families.contains(family) {
                    run.extend(self.operation(option, family).unwrap_or_default());
                }
            }
        }
        let mut done = Vec::new();
        let mut failed = None;
        for family in families {
            let command = match self.operation(option, family) {
                Ok(command) => command,
                Err(error) => {
                    failed = Some(error.to_string());
                    continue;
                }
            };
            let Some(command) = command.filter(|command| !run.contains(command)) else {
                done.push(family.clone());
                continue;
            };
            let script = self.script(&command, None, family).await;
            if self.run(option, &script).await {
                done.push(family.clone());
                run.push(command);
            } else {
                failed.get_or_insert_with(|| "'Script error'".to_owned());
            }
        }
        let Task { jail, action, .. } = self.task;
        let result = match failed {
            None => Ok(()),
            Some(why) => Err(format!("Error {what} action {jail}/{action}: {why}")),
        };
        (done, result)
    }

    /// The command of an option for a family; `None` where there is none.
    fn operation(&self, option: &str, family: &str) -> Result<Option<String>, PropertyError> {
        let command = self.command(option, family)?;
        let command = match family {
            ANY => command,
            family => crate::config::replace_tags(&command, |_, tag| {
                (tag == "family").then(|| family.to_owned())
            }),
        };
        Ok((!command.is_empty()).then_some(command))
    }

    fn command(&self, option: &str, family: &str) -> Result<String, PropertyError> {
        self.properties().command(option, family, &|tag| self.own.tag(tag).map(str::to_owned))
    }

    /// Runs a command about a ban, and once more if it fails and the environment is sane, or is again.
    async fn process(&mut self, option: &str, ticket: &Ticket) -> Result<bool, String> {
        let family = family_of(ticket);
        for attempt in 0..2 {
            if attempt > 0 && self.properties().has("actioncheck") {
                let is_unban = option == "actionunban";
                let may_repair = !is_unban || self.properties().is_set("actionrepair_on_unban");
                let environment = self.check(family, may_repair, "Unban", !is_unban).await?;
                if environment == Environment::Broken {
                    return Ok(false);
                }
            }
            let command = match self.command(option, family) {
                Ok(command) => command,
                Err(error) => {
                    self.is_hopeless = true;
                    return Err(error.to_string());
                }
            };
            let script = self.script(&command, Some(ticket), family).await;
            if self.run(option, &script).await {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks after every family that is started.
    async fn check_all(&mut self, may_repair: bool) -> Result<(), String> {
        if !self.properties().has("actioncheck") {
            return Ok(());
        }
        for family in self.standing.started.clone() {
            if self.check(&family, may_repair, "Flush", true).await? == Environment::Broken {
                self.forget(&family);
            }
        }
        Ok(())
    }

    /// `actioncheck`, and where it fails `actionrepair`, or else `actionstop` and `actionstart`.
    async fn check(
        &mut self,
        family: &str,
        may_repair: bool,
        what: &str,
        is_forced: bool,
    ) -> Result<Environment, String> {
        if !is_forced && !has(&self.standing.started, family) {
            return Ok(Environment::Sane);
        }
        if self.run_operation("actioncheck", family).await? {
            return Ok(Environment::Sane);
        }
        if !may_repair {
            let text = format!("Invariant check failed. {what} is impossible.");
            self.listener.say(Level::Error, text);
            return Ok(Environment::Broken);
        }
        let text = "Invariant check failed. Trying to restore a sane environment";
        self.listener.say(Level::Error, text.to_owned());
        self.standing.epoch += 1;
        if self.properties().has("actionrepair") {
            self.forget(family);
            if !self.run_operation("actionrepair", family).await? {
                return Ok(self.gives_up());
            }
            add(&mut self.standing.started, family);
        } else {
            let families = [family.to_owned()];
            if has(&self.standing.started, family) {
                self.forget(family);
                // What is broken may well refuse to be stopped.
                let _ = self.operate("actionstop", "stopping", &families).await;
            }
            if is_forced || !self.properties().starts_on_demand() {
                self.start_families(&families).await?;
            }
        }
        let is_started = has(&self.standing.started, family);
        if is_started && !self.run_operation("actioncheck", family).await? {
            return Ok(self.gives_up());
        }
        Ok(Environment::Sane)
    }

    fn gives_up(&mut self) -> Environment {
        self.listener.say(Level::Error, "Unable to restore environment".to_owned());
        Environment::Broken
    }

    fn forget(&mut self, family: &str) {
        self.standing.started.retain(|known| known != family);
        self.standing.banned.retain(|known| known != family);
    }

    /// A command that knows the family alone.
    async fn run_operation(&mut self, option: &str, family: &str) -> Result<bool, String> {
        match self.operation(option, family).map_err(|error| error.to_string())? {
            None => Ok(true),
            Some(text) => self.run_text(option, text).await,
        }
    }

    async fn run_text(&mut self, option: &str, text: String) -> Result<bool, String> {
        Ok(self.run(option, &Script { text, ..Script::default() }).await)
    }

    /// The command with everything that is known now.
    async fn script(&mut self, command: &str, ticket: Option<&Ticket>, family: &str) -> Script {
        let mut tags = Tags {
            task: self.task,
            ticket,
            family,
            jail_ban_time: self.recipe.jail_ban_time,
            own: &self.own,
            host: None,
        };
        tags.look_up(&self.shell.hosts, command).await;
        let script = Script::new(command, |tag| tags.tag(tag), |name| tags.field(name));
        for tag in &script.cut {
            let text =
                format!("<{tag}> is longer than a command takes: its oldest lines are left out");
            self.listener.say(Level::Warning, text);
        }
        script
    }

    /// Whether it succeeds; nothing always does.
    async fn run(&mut self, option: &str, script: &Script) -> bool {
        if script.text.is_empty() {
            return true;
        }
        let deadline = Duration::from_secs_f64(self.properties().timeout().clamp(0.0, LONGEST));
        let ran = self.shell.run(script, deadline, self.is_slow).await;
        self.is_hopeless = matches!(ran.ended, Ended::Status(126 | 127) | Ended::Unstarted(_));
        let mask = Mask(self.properties().secrets());
        self.listener.ran(option, script, &ran, &mask);
        matches!(ran.ended, Ended::Status(0))
    }
}

/// What fail2ban says of a task that failed.
fn in_full(task: &Task, ticket: &Ticket, why: &str) -> String {
    let Task { jail, action, .. } = task;
    let verb = match task.kind {
        Kind::Start => return format!("Failed to start jail '{jail}' action '{action}': {why}"),
        Kind::Stop => return format!("Failed to stop jail '{jail}' action '{action}': {why}"),
        Kind::Flush => {
            return format!("Failed to flush bans in jail '{jail}' action '{action}': {why}");
        }
        Kind::Reload => return format!("Failed to reload jail '{jail}' action '{action}': {why}"),
        Kind::Check => return format!("Failed to check jail '{jail}' action '{action}': {why}"),
        Kind::Ban | Kind::Prolong => "ban",
        Kind::Reban => "reban",
        Kind::Unban => "unban",
    };
    let text = |value: &str| crate::config::Value::from(value).to_string();
    let (ip, fid) = (text(ip_of(ticket)), text(&ticket.id));
    let family = text(family_of(ticket));
    format!(
        "Failed to execute {verb} jail '{jail}' action '{action}' info \
         'ActionInfo({{'ip': {ip}, 'fid': {fid}, 'family': {family}}})': {why}"
    )
}

/// What fail2ban says of a command that failed, line by line.
pub(super) fn said(seq: u64, script: &Script, ran: &Ran, mask: &Mask<'_>) -> Vec<(Level, String)> {
    let command = shown(script, mask);
    let is_fine = matches!(ran.ended, Ended::Status(0));
    let level = if is_fine { Level::Debug } else { Level::Error };
    let mut said = Vec::new();
    said.push((level, format!("{seq:x} -- exec: {command}")));
    if let Ended::Late(after) = ran.ended {
        said.push((level, format!("{seq:x} -- timed out after {} seconds.", after.as_secs_f64())));
    }
    for (stream, bytes) in [("stdout", &ran.stdout), ("stderr", &ran.stderr)] {
        for line in lines(bytes, mask) {
            said.push((level, format!("{seq:x} -- {stream}: {}", line)));
        }
    }
    match &ran.ended {
        Ended::Status(0) => {
            said.push((level, format!("{seq:x} -- returned successfully 0")));
        }
        Ended::Status(code) => {
            said.push((level, format!("{seq:x} -- returned {code}")));
            if *code == 127 {
                let path = std::env::var("PATH").unwrap_or_default();
                let hint = format!(
                    "HINT on 127: \"Command not found\": a program in it is not installed, or not in the action runner's PATH ({path})"
                );
                said.push((Level::Info, hint));
            }
        }
        Ended::Signal(signal) => {
            said.push((level, format!("{seq:x} -- killed with signal {signal}")));
        }
        Ended::Late(_) => {
            said.push((level, format!("{seq:x} -- killed with SIGKILL (return code: -9)")));
        }
        Ended::Unstarted(error) => {
            said.push((level, format!("{seq:x} -- failed with {error}")));
        }
    }
    said
}

fn has(families: &[String], family: &str) -> bool {
    families.iter().any(|known| known == family)
}

fn add(families: &mut Vec<String>, family: &str) {
    if !has(families, family) {
        families.push(family.to_owned());
    }
}
