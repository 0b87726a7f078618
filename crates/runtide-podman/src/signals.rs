//! One message as signals of the watch. Pure: it asks the service for nothing.

use std::sync::Arc;

use runtide_core::{
    BackendId, ExitStatus, Gap, InstanceId, InstanceState,
    event::ResumeToken,
    watch::{Edge, Signal, SignalBody},
};

use crate::{
    infra::{Known, has_infra_name},
    normalize::{self, Action, Event, Kind},
};

/// The container of this message, if it may be an infra container and is not known; true if its name says so.
pub(crate) fn unknown_member(known: &Known, event: &Event<'_>) -> Option<(InstanceId, bool)> {
    let id = event.container()?;
    if event.kind() != Kind::Container || event.action() == Action::Nothing || known.is_infra(id).is_some() {
        return None;
    }
    // `died` of Podman 4 does not name the pod, so a container that is met by its end alone may be in one.
    if event.pod().is_none() && event.action() != Action::Died {
        return None;
    }
    let name = event.name().unwrap_or_default();
    let by_name = match event.pod() {
        Some(pod) => has_infra_name(name, pod),
        None => name.len() == "123456789012-infra".len() && name.ends_with("-infra"),
    };
    Some((InstanceId::from(id), by_name))
}

/// Translates a message into signals; none for one that is about no container.
pub(crate) fn translate(
    backend: &BackendId,
    known: &mut Known,
    event: &Event<'_>,
    token: Option<&ResumeToken>,
    out: &mut Vec<Signal>,
) {
    let at = event.at();
    let mut push = |body| out.push(Signal::new(body).with_token(token.cloned()).with_at(at));
    let action = event.action();
    if event.kind() == Kind::System {
        if action == Action::Refresh {
            push(SignalBody::Lost(Gap::RuntimeRestarted));
        }
        return;
    }
    let Some(id) = event.container() else { return };
    if known.is_infra(id) == Some(true) {
        if event.kind() == Kind::Container && action == Action::Remove {
            known.forget(id);
            event.pod().into_iter().for_each(|pod| known.forget_pod(pod));
        }
        return;
    }
    if event.kind() == Kind::Network {
        let id = InstanceId::from(id);
        known.rewire(&id);
        return push(SignalBody::Hint(id));
    }
    let (state, exit) = match action {
        Action::Nothing | Action::Checked => return,
        Action::Remove => {
            known.forget(id);
            return push(SignalBody::Gone(InstanceId::from(id)));
        }
        Action::Refresh | Action::Rotated | Action::Other => return push(SignalBody::Hint(InstanceId::from(id))),
        Action::Create => (InstanceState::Created, None),
        Action::Start | Action::Unpause => (InstanceState::Running, None),
        Action::Pause => (InstanceState::Paused, None),
        Action::Died => (InstanceState::Stopped, event.exit_code().map(ExitStatus::code)),
    };
    known.learn(id, false);
    if action == Action::Start {
        known.begins(id);
    }
    let described = normalize::described(backend, event, state).map(|mut instance| {
        if let Some(name) = event.pod().and_then(|pod| known.pod(pod)) {
            instance.group = Some(normalize::pod(name));
        }
        Arc::new(instance)
    });
    let id = InstanceId::from(id);
    let is_frozen = matches!(action, Action::Pause | Action::Unpause);
    let described = described.filter(|_| !is_frozen);
    push(SignalBody::Edge(Edge { id: id.clone(), incarnation: None, state, exit, described }));
    if !is_frozen {
        push(SignalBody::Hint(id));
    }
}

/// The container that an unreadable message is about.
pub(crate) fn subject(bytes: &[u8]) -> Option<InstanceId> {
    let message: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let id = message.get("Actor").and_then(|actor| actor.get("ID")).or_else(|| message.get("id"))?;
    id.as_str().filter(|id| !id.is_empty()).map(InstanceId::from)
}
