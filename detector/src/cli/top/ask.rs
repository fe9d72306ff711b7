//! The thread that asks the daemon.
use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::Duration,
};

use jiff::tz::TimeZone;

use crate::{
    cli::{Place, ask, explain, status::escaped},
    clock,
    control::{explained::Explained, wire},
};

/// Between two looks; longer where the daemon takes long to answer.
const EVERY: Duration = Duration::from_secs(1);
/// An answer may cost the daemon this part of the time at the most.
const SHARE: u32 = 10;

/// What came of asking.
pub(super) enum News {
    Top(Box<wire::Top>),
    Explained(String),
    Done(String),
    Fault(String),
}

enum Order {
    Explain(String),
    Unban(String, String),
}

/// The way to that thread, which ends with it.
pub(super) struct Asker {
    orders: Sender<Order>,
    news: Receiver<News>,
}

impl Asker {
    pub fn start(place: Place) -> io::Result<Asker> {
        let ((orders, taken), (tell, news)) = (channel(), channel());
        let thread = std::thread::Builder::new().name("ask".into());
        thread.spawn(move || work(&place, &taken, &tell))?;
        Ok(Asker { orders, news })
    }

    pub fn explain(&self, prefix: String) {
        // The thread lives as long as we do.
        let _ = self.orders.send(Order::Explain(prefix));
    }

    pub fn unban(&self, prefix: String, jail: String) {
        let _ = self.orders.send(Order::Unban(prefix, jail));
    }

    pub fn news(&self) -> Option<News> {
        self.news.try_recv().ok()
    }
}

fn work(place: &Place, orders: &Receiver<Order>, tell: &Sender<News>) {
    let mut wait = EVERY;
    loop {
        let news = match orders.recv_timeout(wait) {
            Ok(Order::Explain(prefix)) => explained(place, &prefix).map(News::Explained),
            Ok(Order::Unban(prefix, jail)) => unban(place, &prefix, &jail).map(News::Done),
            Err(RecvTimeoutError::Timeout) => Ok(News::Done(String::new())),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let news = news.unwrap_or_else(|error| News::Fault(format!("{error:#}")));
        let begun = clock::monotonic();
        let top = match ask::get::<wire::Top>(place, "/v1/top") {
            Ok(answer) => News::Top(Box::new(answer.read)),
            Err(error) => News::Fault(format!("{error:#}")),
        };
        wait = EVERY.max(begun.elapsed() * SHARE);
        if tell.send(top).is_err() || tell.send(news).is_err() {
            return;
        }
    }
}

fn explained(place: &Place, prefix: &str) -> anyhow::Result<String> {
    let answer = ask::get::<Explained>(place, &format!("/v1/explain/{}", escaped(prefix)))?;
    Ok(explain::text(&answer.read, clock::now().seconds(), &TimeZone::system()))
}

fn unban(place: &Place, prefix: &str, jail: &str) -> anyhow::Result<String> {
    let (prefixes, jail) = (vec![prefix.to_owned()], Some(jail.to_owned()));
    let order = wire::UnbanOrder { prefixes, jail, all: false };
    let lifted = ask::post::<wire::BansLifted>(place, "/v1/unban", &order)?.read.lifted;
    Ok(format!("{lifted} bans of {prefix} were lifted"))
}
