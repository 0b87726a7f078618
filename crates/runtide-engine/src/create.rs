//! [`Creation`]: finds what a create made whose answer is lost, by a label that only this create has.

use std::{convert::Infallible, fmt, time::Duration};

use runtide_core::{ErrorKind, Labels, Result, backend::CreateGuard};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    client::Client,
    dialect::Dialect,
    late::{self, seen_through},
    request::Request,
};

/// Label of everything that is created, by which one create is told from any other. It is no label of the user's: backends do not show
/// it.
pub const CREATE_LABEL: &str = "runtide.create";

/// Times that a removal is tried.
const ROUNDS: u32 = 6;

/// Pause before the second of them; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The requests by which objects of one kind are found by their label, and removed.
#[derive(Clone, Copy, Debug)]
pub struct Objects {
    /// Path of the list, with its query. The answer is a list, or an object that has it as `Volumes`.
    pub list: &'static str,
    /// Member of an item by which it is removed.
    pub key: &'static str,
    /// Member of an item with its labels.
    pub labels: &'static str,
    /// Begin of the path of one object, as `/networks/`.
    pub path: &'static str,
    /// Query of the removal, with its question mark.
    pub options: &'static str,
}

/// One create, and the label of what it makes.
#[derive(Debug)]
pub struct Creation<D: Dialect> {
    /// Goes on after the backend is closed: what was made before that is not to stay.
    client: Client<D>,
    operation: &'static str,
    name: String,
    label: (&'static str, String),
    objects: &'static [Objects],
}

impl<D: Dialect> Clone for Creation<D> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            operation: self.operation,
            name: self.name.clone(),
            label: self.label.clone(),
            objects: self.objects,
        }
    }
}

impl<D: Dialect> Creation<D> {
    /// A create of such objects. The name is for the log.
    pub fn new(
        client: &Client<D>,
        operation: &'static str,
        name: impl fmt::Display,
        objects: &'static [Objects],
    ) -> Self {
        let label = (CREATE_LABEL, Uuid::new_v4().simple().to_string());
        Self { client: client.outliving_close(), operation, name: name.to_string(), label, objects }
    }

    /// With a label that has a meaning for others as well. No other create may have it.
    #[must_use]
    pub fn with_label(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.label = (key, value.into());
        self
    }

    /// Key and value of the label that what is made must have.
    pub fn label(&self) -> (&'static str, &str) {
        (self.label.0, &self.label.1)
    }

    /// Runs the create to its end, also if this future is dropped: what it gives is then dropped, and a guard in it removes what was
    /// made. Where the answer was lost, what has the label is removed, now and as the daemon may come to an end with it later.
    ///
    /// # Cancel safety
    /// Sound; see above.
    pub async fn run<T: Send + 'static>(&self, create: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let this = self.clone();
        let made = async move {
            let made = create.await;
            if let Err(error) = &made {
                let (client, operation) = (this.client.clone(), this.operation);
                late::undo(&client, operation, error, move || this.guard()).await;
            }
            made
        };
        seen_through(&self.client, self.operation, made).await
    }

    /// The same for a create that takes as long as its object is large. Dropped, this future drops the create with its request, so that
    /// nothing waits for it any more. The daemon may go on with it: what it makes is removed, as where the answer was lost, up to 2 h 40 min
    /// later.
    ///
    /// # Cancel safety
    /// Sound; see above.
    pub async fn run_while_awaited<T: Send + 'static>(
        &self,
        create: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (awaited, is_dropped) = tokio::sync::oneshot::channel::<Infallible>();
        let this = self.clone();
        let made = self.run(async move {
            tokio::select! {
                biased;
                made = create => made,
                _ = is_dropped => {
                    let (client, operation) = (this.client.clone(), this.operation);
                    let message = "its caller does not wait for it any more";
                    let error = client.site(operation).error(ErrorKind::Cancelled, message);
                    late::undo_work(&client, operation, move || this.guard()).await;
                    Err(error)
                }
            }
        });
        let made = made.await;
        drop(awaited);
        made
    }

    /// The guard that removes what has the label.
    pub fn guard(&self) -> CreateGuard {
        let this = self.clone();
        CreateGuard::new(self.client.site(self.operation), &self.name, self.client.deadline(), move || {
            let this = this.clone();
            async move { this.remove().await }
        })
    }

    /// Removes what has the label. An object that is in use may be free in a moment, as an image whose container is being removed; and Podman
    /// fails to list images while another client removes one.
    async fn remove(&self) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ROUNDS {
            match self.remove_once().await {
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Unexpected) => {}
                done => return done,
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2);
        }
        self.remove_once().await
    }

    /// Nothing is removed by a daemon's word alone that it has the label: each item must show it.
    async fn remove_once(&self) -> Result<()> {
        let (key, value) = self.label();
        let filters = json!({ "label": [format!("{key}={value}")] });
        let call = async |request| self.client.call(self.operation, request, self.client.deadline()).await;
        let mut in_use = Ok(());
        for objects in self.objects {
            let listed = call(Request::get(objects.list).with_query("filters", &filters)).await?;
            let listed: Value =
                serde_json::from_slice(&listed).map_err(|error| self.client.site(self.operation).undecodable(error))?;
            let items = listed.as_array().or_else(|| listed.get("Volumes")?.as_array());
            for item in items.into_iter().flatten() {
                let label = item.get(objects.labels).and_then(|labels| labels.get(key)?.as_str());
                if label != Some(value) {
                    continue;
                }
                let Some(id) = item.get(objects.key).and_then(Value::as_str).filter(|id| is_id(id)) else {
                    let message = "the daemon lists an object without an id";
                    return Err(self.client.site(self.operation).error(ErrorKind::Protocol, message));
                };
                match call(Request::delete(format!("{}{id}{}", objects.path, objects.options))).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) if error.kind() == ErrorKind::Conflict => in_use = Err(error),
                    Err(error) => return Err(error),
                    Ok(_) => {}
                }
            }
        }
        in_use
    }
}

/// An id or a name, as the daemon lists it, which stays one segment of a path.
fn is_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b':');
    text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text.bytes().all(is_plain)
}

/// The labels that a user gave, without the one of the create.
pub fn users_labels<K: AsRef<str>, V: AsRef<str>>(labels: impl IntoIterator<Item = (K, V)>) -> Labels {
    labels.into_iter().filter(|(key, _)| key.as_ref() != CREATE_LABEL).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_one_segment_of_a_path() {
        assert!(is_id("sha256:0123") && is_id("web_1.a-b"));
        for hostile in ["", "..", "a/b", "a?force=1", "a%2f", "-a", "a b"] {
            assert!(!is_id(hostile), "{hostile}");
        }
    }
}
