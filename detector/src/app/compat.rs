//! fail2ban's own socket, where the configuration asks for it.
use std::path::{Path, PathBuf};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::LAST_ANSWERS;
use crate::control::{self, Asked};

/// The socket being served.
pub(super) struct Compat {
    path: PathBuf,
    close: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Compat {
    /// Opens it. Without it nobody is protected less: why there is none is only said.
    pub async fn open(path: &Path, ask: mpsc::Sender<Asked>) -> Option<Compat> {
        let listener = match control::bind_compat(path).await {
            Ok(listener) => listener,
            Err(control::BindError::Taken(path)) => {
                tracing::error!(
                    "no compatibility socket: somebody answers on `{}`: stop fail2ban, or set `socket` in fail2ban.conf",
                    path.display()
                );
                return None;
            }
            Err(error) => {
                tracing::error!("no compatibility socket: {error}");
                return None;
            }
        };
        let (close, closed) = oneshot::channel();
        let serving = tokio::spawn(async move {
            if let Err(error) = control::serve_compat(listener, ask, closed).await {
                tracing::error!("the compatibility socket is gone: {error}");
            }
        });
        tracing::info!("fail2ban's clients are answered on `{}`", path.display());
        Some(Compat { path: path.to_owned(), close, serving })
    }

    /// Answers what was asked, and removes it.
    pub async fn close(self) {
        let _ = std::fs::remove_file(&self.path);
        drop(self.close);
        let _ = tokio::time::timeout(LAST_ANSWERS, self.serving).await;
    }
}
