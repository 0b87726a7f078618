//! The status that it reports of a pod.

use serde_json::{Value, json};

/// The end of one run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) begin: String,
    pub(super) end: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running {
        since: String,
    },
    Ended(Ended),
    /// Waits for its next run.
    BackOff,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) id: String,
    pub(super) state: State,
    pub(super) last: Option<Ended>,
    pub(super) restarts: u64,
}

/// The time, as the API has it: in whole seconds.
pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn terminated(id: &str, ended: &Ended) -> Value {
    json!({ "terminated": {
        "exitCode": ended.code,
        "reason": if ended.code == 0 { "Completed" } else { "Error" },
        "startedAt": ended.begin,
        "finishedAt": ended.end,
        "containerID": id,
    } })
}

impl Container {
    fn runs(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    fn status(&self) -> Value {
        let state = match &self.state {
            State::Running { since } => json!({ "running": { "startedAt": since } }),
            State::Ended(ended) => terminated(&self.id, ended),
            State::BackOff => json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off restarting" } }),
        };
        json!({
            "name": self.name,
            "image": self.image,
            "imageID": self.image,
            "containerID": self.id,
            "ready": self.runs(),
            "started": self.runs(),
            "restartCount": self.restarts,
            "state": state,
            "lastState": self.last.as_ref().map_or_else(|| json!({}), |ended| terminated(&self.id, ended)),
        })
    }
}

/// The status of a pod with these containers.
pub(super) fn of(containers: &[Container], since: &str) -> Value {
    let codes: Vec<i32> = containers
        .iter()
        .filter_map(|container| if let State::Ended(ended) = &container.state { Some(ended.code) } else { None })
        .collect();
    let over = codes.len() == containers.len();
    let phase = match over {
        false => "Running",
        true if codes.iter().all(|code| *code == 0) => "Succeeded",
        true => "Failed",
    };
    let ready = containers.iter().all(Container::runs);
    let condition = |kind: &str, holds: bool| json!({ "type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": now() });
    json!({
        "phase": phase,
        "conditions": [
            condition("Initialized", true),
            condition("Ready", ready),
            condition("ContainersReady", ready),
            condition("PodScheduled", true),
        ],
        "hostIP": "127.0.0.1",
        "podIP": "127.0.0.1",
        "podIPs": [{ "ip": "127.0.0.1" }],
        "startTime": since,
        "containerStatuses": containers.iter().map(Container::status).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(state: State) -> Container {
        let (name, image, id) = ("c".to_owned(), "i".to_owned(), "fake://1".to_owned());
        Container { name, image, id, state, last: None, restarts: 0 }
    }

    fn ended(code: i32) -> State {
        State::Ended(Ended { code, begin: now(), end: now() })
    }

    #[test]
    fn a_pod_is_over_once_all_its_containers_are() {
        let running = || State::Running { since: now() };
        let phase = |states: Vec<State>| {
            let containers: Vec<_> = states.into_iter().map(container).collect();
            of(&containers, &now()).get("phase").unwrap().as_str().unwrap().to_owned()
        };
        assert_eq!(phase(vec![running(), ended(1)]), "Running");
        assert_eq!(phase(vec![State::BackOff]), "Running");
        assert_eq!(phase(vec![ended(0), ended(0)]), "Succeeded");
        assert_eq!(phase(vec![ended(0), ended(3)]), "Failed");
    }

    #[test]
    fn a_container_between_two_runs_is_not_ready() {
        let mut waits = container(State::BackOff);
        waits.last = Some(Ended { code: 2, begin: now(), end: now() });
        let status = of(&[waits], &now());
        assert_eq!(status.pointer("/containerStatuses/0/state/waiting/reason"), Some(&json!("CrashLoopBackOff")));
        assert_eq!(status.pointer("/containerStatuses/0/lastState/terminated/exitCode"), Some(&json!(2)));
        assert_eq!(status.pointer("/conditions/1/status"), Some(&json!("False")));
    }
}
