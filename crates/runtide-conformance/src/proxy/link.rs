//! One connection through the proxy.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::{Action, Shared, Socket, dial, is_absent, lock};

/// The end of a connection.
enum End {
    /// In good order: the bytes written so far still arrive.
    Close,
    /// As abruptly as the socket can.
    Reset,
    /// As [`End::Reset`], because nothing listens at the target.
    Absent,
}

/// Carries bytes between a client and the target until either ends, or a rule or the proxy ends it.
pub(super) async fn carry(mut client: Box<dyn Socket>, id: u64, kill: CancellationToken, shared: Arc<Shared>) {
    let mut link = Link {
        id,
        request: String::new(),
        answered: 0,
        withheld: false,
        held: Vec::new(),
        shared: Arc::clone(&shared),
    };
    let end = tokio::select! {
        biased;
        () = kill.cancelled() => End::Reset,
        end = link.run(&mut *client) => end,
    };
    match end {
        End::Reset | End::Absent => client.reset_on_close(),
        End::Close => {
            // The other side may have closed already.
            let _ = client.shutdown().await;
        }
    }
    if matches!(end, End::Absent) {
        // It is closed once the proxy does not listen, or here if the proxy is gone.
        let _ = shared.unserved.send(client);
    } else {
        drop(client);
    }
    lock(&shared.live).remove(&id);
}

struct Link {
    id: u64,
    request: String,
    /// Bytes of the current answer so far.
    answered: usize,
    /// `true` once bytes were swallowed: the connection is of no use after that.
    withheld: bool,
    /// The end of an answer's piece that may be the beginning of a match.
    held: Vec<u8>,
    shared: Arc<Shared>,
}

impl Link {
    async fn run(&mut self, client: &mut dyn Socket) -> End {
        let mut changed = self.shared.changed.subscribe();
        if let Some(end) = self.before_dialling(client, &mut changed).await {
            return end;
        }
        let server = match dial(&self.shared.target).await {
            Ok(server) => server,
            Err(error) if is_absent(&error) => return End::Absent,
            Err(_) => return End::Reset,
        };
        let (mut server, mut to_server) = tokio::io::split(server);
        let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        // Bytes for the target that it does not take yet: it may wait for its own bytes to be taken first.
        let mut pending = Vec::new();
        let mut client_open = true;
        loop {
            tokio::select! {
                written = to_server.write(&pending), if !pending.is_empty() => match written {
                    Ok(n) if n > 0 => drop(pending.drain(..n)),
                    _ => return End::Reset,
                },
                _ = changed.changed() => {
                    match self.action() {
                        Some(Action::Refuse) => return End::Reset,
                        Some(Action::Swallow) => {}
                        _ if self.withheld => return End::Reset,
                        _ => {}
                    }
                }
                read = client.read(&mut up), if client_open && pending.is_empty() => {
                    match read {
                        Err(_) => return End::Reset,
                        Ok(0) => {
                            client_open = false;
                            if to_server.shutdown().await.is_err() {
                                return End::Close;
                            }
                        }
                        Ok(n) => {
                            let bytes = up.get(..n).unwrap_or_default();
                            if let Some(end) = self.upwards(bytes, client, &mut pending).await {
                                return end;
                            }
                        }
                    }
                }
                read = server.read(&mut down) => {
                    match read {
                        Err(_) => return End::Reset,
                        Ok(0) => {
                            if matches!(self.action(), Some(Action::Swallow)) {
                                self.withheld = true;
                                self.wait_for_heal(&mut changed).await;
                                return End::Reset;
                            }
                            let held = std::mem::take(&mut self.held);
                            return if client.write_all(&held).await.is_ok() { End::Close } else { End::Reset };
                        }
                        Ok(n) => {
                            let bytes = down.get(..n).unwrap_or_default();
                            if let Some(end) = self.downwards(bytes, client).await {
                                return end;
                            }
                        }
                    }
                }
            }
        }
    }

    fn action(&self) -> Option<Action> {
        self.shared.action(self.id, &self.request)
    }

    /// Applies a rule for every connection, before the target is dialled.
    async fn before_dialling(&mut self, client: &mut dyn Socket, changed: &mut watch::Receiver<()>) -> Option<End> {
        match self.action() {
            Some(Action::Refuse) => Some(End::Reset),
            Some(Action::Swallow) => {
                self.withheld = true;
                let mut sink = vec![0; 1 << 12];
                loop {
                    tokio::select! {
                        () = self.wait_for_heal(changed) => return Some(End::Reset),
                        read = client.read(&mut sink) => if read.map_or(true, |n| n == 0) {
                            return Some(End::Close);
                        },
                    }
                }
            }
            _ => None,
        }
    }

    /// Waits until the rule that swallows is gone.
    async fn wait_for_heal(&self, changed: &mut watch::Receiver<()>) {
        while matches!(self.action(), Some(Action::Swallow)) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes bytes from the client, to be passed on to the target.
    async fn upwards(&mut self, bytes: &[u8], client: &mut dyn Socket, pending: &mut Vec<u8>) -> Option<End> {
        if let Some(request) = request_line(&self.request, bytes) {
            self.request.clone_from(&request);
            self.answered = 0;
            if let Some(live) = lock(&self.shared.live).get_mut(&self.id) {
                live.request = request;
            }
        }
        match self.action() {
            Some(Action::Refuse) => Some(End::Reset),
            Some(Action::Swallow) => {
                self.withheld = true;
                None
            }
            // Behind a hole nothing may follow, also if these bytes came before the news that the rule is gone.
            _ if self.withheld => Some(End::Reset),
            Some(Action::Answer(answer)) => {
                let written = client.write_all(&answer).await.is_ok();
                Some(if written { End::Close } else { End::Reset })
            }
            _ => {
                pending.extend_from_slice(bytes);
                None
            }
        }
    }

    /// Passes bytes from the target on to the client.
    async fn downwards(&mut self, bytes: &[u8], client: &mut dyn Socket) -> Option<End> {
        let first = self.answered == 0;
        self.answered = self.answered.saturating_add(bytes.len());
        match self.action() {
            Some(Action::Refuse) => Some(End::Reset),
            Some(Action::Swallow) => {
                self.withheld = true;
                None
            }
            _ if self.withheld => Some(End::Reset),
            Some(Action::Delay(time)) if first => {
                self.pause(time).await;
                client.write_all(bytes).await.is_err().then_some(End::Reset)
            }
            Some(Action::Cut(most)) => {
                let before = self.answered.saturating_sub(bytes.len());
                let pass = bytes.get(..most.saturating_sub(before).min(bytes.len())).unwrap_or_default();
                let written = client.write_all(pass).await.is_ok() && client.flush().await.is_ok();
                (!written || self.answered > most).then_some(End::Close)
            }
            Some(Action::Replace(from, to)) => {
                let (replaced, times) = replace(&mut self.held, bytes, &from, &to);
                let written = client.write_all(&replaced).await.is_ok() && client.flush().await.is_ok();
                if written {
                    self.shared.replaced.fetch_add(times, Ordering::Release);
                }
                (!written).then_some(End::Reset)
            }
            _ => {
                let mut held = std::mem::take(&mut self.held);
                held.extend_from_slice(bytes);
                client.write_all(&held).await.is_err().then_some(End::Reset)
            }
        }
    }

    /// Waits for this time, or until a rule changes the action.
    async fn pause(&self, time: Duration) {
        let mut changed = self.shared.changed.subscribe();
        let healed =
            async { while matches!(self.action(), Some(Action::Delay(_))) && changed.changed().await.is_ok() {} };
        // Either way the answer goes on.
        let _ = tokio::time::timeout(time, healed).await;
    }
}

/// The first line of a request, if these bytes begin one. `before` is the request before it on this connection.
fn request_line(before: &str, bytes: &[u8]) -> Option<String> {
    let line = bytes.split(|byte| *byte == b'\r' || *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    // After a request of HTTP, a text may be its body.
    let begins = is_http(line) || (!is_http(before) && !line.is_empty() && !line.contains(char::is_control));
    begins.then(|| line.to_owned())
}

fn is_http(line: &str) -> bool {
    let Some((method, rest)) = line.split_once(' ') else { return false };
    let is_method = matches!(method, "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS");
    is_method && rest.contains(" HTTP/1.")
}

/// Replaces in a stream that comes in pieces, and counts how many times. A possible beginning of a match is held back until the next piece.
pub(super) fn replace(held: &mut Vec<u8>, bytes: &[u8], from: &[u8], to: &[u8]) -> (Vec<u8>, u64) {
    let mut text = std::mem::take(held);
    text.extend_from_slice(bytes);
    if from.is_empty() || from.len() != to.len() {
        return (text, 0);
    }
    let mut times = 0;
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_slice();
    while let Some((first, tail)) = rest.split_first() {
        if rest.starts_with(from) {
            out.extend_from_slice(to);
            times += 1;
            rest = rest.get(from.len()..).unwrap_or_default();
        } else if from.starts_with(rest) {
            *held = rest.to_vec();
            break;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    (out, times)
}
