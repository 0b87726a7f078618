//! A connection to a port of a pod, over a WebSocket of the API server.
//!
//! Each message begins with the number of its channel: 0 has the bytes of the connection, 1 the node's words on a failure. The first two
//! bytes of either are the port, in little endian, and are sent once the node has taken the request.

mod passing;
mod stream;

use std::num::NonZeroU16;

use bytes::Bytes;
use futures_util::StreamExt as _;
use runtide_core::{ErrorKind, InstanceId, InstanceState, Result};
use tokio_tungstenite::tungstenite::Message;

pub use self::stream::PortForward;
use super::subject::Subject;
use crate::{
    client::{Client, Socket},
    config::Granularity,
    list::with_query,
};

const FORWARD: &str = "k8s.forward";

const DATA: u8 = 0;
const ERROR: u8 = 1;

/// Bytes of a port, at the beginning of each channel.
const PORT: usize = 2;
/// Most bytes that are taken of one channel before the other has begun.
const MOST: usize = 1 << 20;

/// Opens a connection to this port.
pub(crate) async fn forward(client: &Client, id: &InstanceId, port: NonZeroU16) -> Result<PortForward> {
    let subject = Subject::find(client, FORWARD, id).await?;
    let Some(seen) = subject.look().await? else { return Err(subject.is_gone()) };
    let has_no_network = matches!(
        seen.state,
        InstanceState::Created | InstanceState::Starting | InstanceState::Stopped | InstanceState::Failed
    );
    // The pod of a container that has ended may run.
    if has_no_network && client.config().granularity == Granularity::Pod {
        return Err(subject.error(ErrorKind::Conflict, format!("its pod does not run: it is {}", seen.state)));
    }
    let path = with_query(format!("{}/portforward", subject.path()), &[("ports", &port.to_string())]);
    let (mut socket, _) = client.upgrade(FORWARD, &path).await?;
    let deadline = client.config().deadline;
    let taken = subject.site().within(deadline, taken(&subject, &mut socket, port));
    let first = client.until_closed(FORWARD, taken).await?;
    Ok(passing::start(subject, socket, first))
}

/// Reads the channels' beginnings; the bytes that came with them.
async fn taken(subject: &Subject, socket: &mut Socket, port: NonZeroU16) -> Result<Bytes> {
    let mut channels = [Vec::new(), Vec::new()];
    while channels.iter().any(|channel| channel.len() < PORT) {
        let data = match socket.next().await {
            Some(Ok(Message::Binary(data))) => data,
            Some(Ok(Message::Close(_))) | None => {
                return Err(subject.error(ErrorKind::Unavailable, "the node ended the connection before it took it"));
            }
            Some(Ok(_)) => continue,
            Some(Err(error)) => {
                let message = "the connection broke before the node took it";
                return Err(subject.error(ErrorKind::Unavailable, message).with_source(error));
            }
        };
        let Some((channel, bytes)) = data.split_first() else { continue };
        if let Some(channel) = channels.get_mut(usize::from(*channel)) {
            channel.extend_from_slice(bytes);
            if channel.len() > MOST {
                return Err(subject.error(ErrorKind::Protocol, "one channel has no beginning"));
            }
        }
    }
    let [mut data, words] = channels;
    let is_named = |channel: &[u8]| channel.get(..PORT) == Some(&port.get().to_le_bytes()[..]);
    if !is_named(&data) || !is_named(&words) {
        return Err(subject.error(ErrorKind::Protocol, format!("the node does not name port {port}")));
    }
    if let Some(words) = words.get(PORT..).filter(|words| !words.is_empty()) {
        return Err(subject.error(ErrorKind::Unexpected, passing::printable(words)));
    }
    Ok(Bytes::from(data.split_off(PORT)))
}
