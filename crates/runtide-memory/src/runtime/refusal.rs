//! Errors that many verbs of the runtime return.

use runtide_core::{Error, ErrorKind, InstanceId};

use crate::fault::Call;

pub(crate) fn missing(id: &InstanceId, call: Call) -> Error {
    Error::new(ErrorKind::NotFound, call.operation(), "there is no such instance").with_context("instance", id)
}

pub(crate) fn conflict(id: &InstanceId, call: Call, message: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, call.operation(), message).with_context("instance", id)
}
