//! `top`: the live view of an attack.
//!
//! One thread asks the daemon, one draws: a daemon that takes long to answer keeps no key waiting.
mod ask;
mod state;
mod view;

use std::{
    io::IsTerminal,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use self::{
    ask::{Asker, News},
    state::{State, Wish},
};
use super::Place;
use crate::{clock, control::wire};

/// How long a key may wait to be looked at, and news to be drawn.
const TICK: Duration = Duration::from_millis(100);

/// How long the view has to end by itself.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(super) fn run(place: &Place) -> anyhow::Result<ExitCode> {
    if place.json {
        let answer = super::ask::get::<wire::Top>(place, "/v1/top")?;
        super::ask::print(place, &answer, |_| String::new());
        return Ok(ExitCode::SUCCESS);
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        bail!(
            "`top` draws on a terminal, and this is none; `fail2xdp top --json` prints what it shows, once"
        );
    }
    // Before the screen is taken: what is wrong can be read then.
    let first = super::ask::get::<wire::Top>(place, "/v1/top")?.read;
    let mut state = State::new(first);
    let asker = Asker::start(place.clone()).context("there is no thread to ask the daemon")?;
    let ended = ended_by_signal()?;
    // Leaves the terminal as it was also when we panic.
    let mut terminal = ratatui::try_init().context("the terminal cannot be drawn on")?;
    let done = draw(&mut terminal, &mut state, &asker, &ended);
    ratatui::restore();
    done?;
    Ok(ExitCode::SUCCESS)
}

fn draw(
    terminal: &mut ratatui::DefaultTerminal,
    state: &mut State,
    asker: &Asker,
    ended: &AtomicBool,
) -> anyhow::Result<()> {
    loop {
        let now = clock::now().seconds();
        terminal.draw(|frame| view::draw(frame, state, now))?;
        if ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        // A terminal that is gone answers with an error: that is an end, too.
        if event::poll(TICK)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match state.key(key) {
                    Wish::Nothing => {}
                    Wish::Quit => return Ok(()),
                    Wish::Explain(prefix) => asker.explain(prefix),
                    Wish::Unban(prefix, jail) => asker.unban(prefix, jail),
                },
                _ => {}
            }
        }
        while let Some(news) = asker.news() {
            match news {
                News::Top(top) => state.take(*top),
                News::Explained(text) => state.show(text),
                News::Done(what) | News::Fault(what) => state.say(what),
            }
        }
    }
}

/// Becomes true when somebody ends us from outside: the terminal is put back then, too.
fn ended_by_signal() -> anyhow::Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let ended = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&ended);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let (Ok(mut terminate), Ok(mut hangup)) =
                (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
            else {
                return;
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            tell.store(true, Ordering::Relaxed);
        });
        // Where the terminal itself is gone, waiting for a key never ends.
        std::thread::sleep(LAST_WORDS);
        ratatui::restore();
        std::process::exit(1);
    })?;
    Ok(ended)
}
