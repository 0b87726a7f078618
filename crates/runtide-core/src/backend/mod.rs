//! The kit for backends: the parts that every backend needs and none should write again. No client of a daemon is in it.
//!
//! | part | purpose |
//! |---|---|
//! | [`CallSite`] | names the operation, the backend and the endpoint in each error, and bounds a call by its deadline |
//! | [`Session`] | closed or open, and the server that answered last |
//! | [`CreateGuard`] | removes a created object when its call fails or is dropped |
//! | [`check_deadline`], [`instant_after`] | refuse a deadline of zero, survive one that never ends |
//! | [`poll_interval`] | how often to dial an address at which nothing listens |
//! | [`lock`] | a mutex without poison |
//! | `setters!`, `names!` | option setters, text newtypes |

mod call_site;
mod create_guard;
mod deadline;
mod lock;
mod poll;
mod session;

pub use self::{
    call_site::CallSite,
    create_guard::CreateGuard,
    deadline::{check_deadline, instant_after, saturating_add},
    lock::lock,
    poll::poll_interval,
    session::Session,
};
pub use crate::{__names as names, __setters as setters};
