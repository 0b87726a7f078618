//! Creates whose answer comes late, or never: [`Creation`].
//!
//! A daemon enters an object into its tables at the end of a create. An undo that runs before that finds nothing, and the object is
//! there afterwards. So a create is a task of its own, which goes on when its call has given up, and undoes after the answer. Where the
//! answer is lost, what was made is found by a label that only this create has.

use std::{fmt, time::Duration};

use runtide_core::{Error, ErrorKind, Labels, Result, Retry, backend::CreateGuard};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{client::Client, dialect::Dialect, error::is_answer, request::Request};

/// Label of everything that is created, by which one create is told from any other. It is no label of the user's: backends do not show
/// it.
pub const CREATE_LABEL: &str = "runtide.create";

/// Longest wait for the answer to a create, also where no caller waits for it any more.
pub const LATEST_ANSWER: Duration = Duration::from_secs(300);

/// Pauses before the looks for what a create without an answer made.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120)];

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
                undo(error, move || this.guard()).await;
            }
            made
        };
        seen_through(&self.client, self.operation, made).await
    }

    /// The guard that removes what has the label.
    pub fn guard(&self) -> CreateGuard {
        let this = self.clone();
        CreateGuard::new(self.client.site(self.operation), &self.name, self.client.deadline(), move || {
            let this = this.clone();
            async move { this.remove().await }
        })
    }

    /// Removes what has the label. Nothing is removed by a daemon's word alone that it has: each item must show it.
    async fn remove(&self) -> Result<()> {
        let (key, value) = self.label();
        let filters = json!({ "label": [format!("{key}={value}")] });
        let call = async |request| self.client.call(self.operation, request, self.client.deadline()).await;
        for objects in self.objects {
            let listed = call(Request::get(objects.list).with_query("filters", &filters)).await?;
            let listed: Value =
                serde_json::from_slice(&listed).map_err(|error| self.client.site(self.operation).undecodable(error))?;
            let items = listed.as_array().or_else(|| listed["Volumes"].as_array());
            for item in items.into_iter().flatten().filter(|item| item[objects.labels][key] == value) {
                let Some(id) = item[objects.key].as_str().filter(|id| is_id(id)) else {
                    let message = "the daemon lists an object without an id";
                    return Err(self.client.site(self.operation).error(ErrorKind::Protocol, message));
                };
                match call(Request::delete(format!("{}{id}{}", objects.path, objects.options))).await {
                    // Gone, or being removed: by a guard that was dropped in the middle of its own removal.
                    Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
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

/// Runs a create to its end, also if this future is dropped. What it made is then dropped: its guard removes it.
///
/// # Errors
/// The create's own; `Cancelled` if the tokio runtime ends first.
///
/// # Cancel safety
/// Sound; see above.
pub async fn seen_through<D: Dialect, T: Send + 'static>(
    client: &Client<D>,
    operation: &'static str,
    create: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    tokio::spawn(async move { answer.send(create.await) });
    answered.await.unwrap_or_else(|_| {
        let message = "the runtime of the create's task has ended";
        Err(client.site(operation).error(ErrorKind::Cancelled, message))
    })
}

/// Removes what a failed create made, if it may have made something. If its answer did not come, the daemon may still be at it: a task
/// looks again later.
pub async fn undo(error: &Error, guard: impl Fn() -> CreateGuard + Send + 'static) {
    if !is_lost(error) {
        return;
    }
    guard().undo().await;
    tokio::spawn(async move {
        for pause in PAUSES {
            tokio::time::sleep(pause).await;
            guard().undo().await;
        }
    });
}

/// `true` if the request may have been carried out, so that its outcome is not known: no answer came, none that can be read, or one of a
/// proxy that got none.
fn is_lost(error: &Error) -> bool {
    if error.fact("status").is_some() {
        return !is_answer(error);
    }
    // Where nothing listens, no request was sent.
    !matches!(error.retry(), Retry::Poll(_))
        && matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_daemons_own_answer_says_that_nothing_was_made() {
        let error = |kind| Error::new(kind, "engine.create", "it failed");
        for (status, kind) in [("502", ErrorKind::Unavailable), ("504", ErrorKind::Timeout)] {
            assert!(is_lost(&error(kind).with_context("status", status)), "a proxy's {status}");
        }
        for (status, kind) in
            [("409", ErrorKind::Conflict), ("500", ErrorKind::Unexpected), ("404", ErrorKind::NotFound)]
        {
            assert!(!is_lost(&error(kind).with_context("status", status)), "{status}");
        }
        for kind in [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::Protocol] {
            assert!(is_lost(&error(kind)), "{kind}");
        }
        assert!(!is_lost(&error(ErrorKind::InvalidInput)), "it was not sent");
        assert!(!is_lost(&error(ErrorKind::Unavailable).with_retry(Retry::Poll(Duration::from_millis(50)))));
    }

    #[test]
    fn an_id_stays_one_segment_of_a_path() {
        assert!(is_id("sha256:0123") && is_id("web_1.a-b"));
        for hostile in ["", "..", "a/b", "a?force=1", "a%2f", "-a", "a b"] {
            assert!(!is_id(hostile), "{hostile}");
        }
    }
}
