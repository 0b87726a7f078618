//! Answers that a real pve-manager 9.2.11 gave, each decoded to the value that it means. Of the guest without a config file and of the
//! refused log-ins, only the message is recorded; the form around it is that of the others.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, time::Duration};

use runtide_core::{Error, ErrorKind};
use runtide_proxmox::{Change, GuestKind, GuestState, Guests, Reply, TaskState, Upid, log_lines};
use serde_json::Value;

fn data(body: &str) -> Value {
    Reply { status: 200, reason: "OK", body: body.as_bytes() }.into_data("proxmox.sample", Change::No).unwrap()
}

fn refusal(status: u16, reason: &str, body: &str) -> Error {
    Reply { status, reason, body: body.as_bytes() }.into_data("proxmox.sample", Change::Yes).unwrap_err()
}

#[test]
fn a_row_of_the_clusters_resources() {
    let list = Guests::of(
        &data(
            r#"{"data":[{"node":"pve1","netout":0,"mem":663552,"maxmem":67108864,"netin":0,"maxdisk":270553174016,"id":"lxc/100","uptime":34,"disk":29992329216,"diskwrite":0,"cpu":0.000494589974064799,"name":"web","status":"running","tags":"a;b","memhost":0,"diskread":0,"type":"lxc","maxcpu":2,"vmid":100,"template":0}]}"#,
        ),
        None,
    )
    .unwrap();
    let [guest] = &list.guests[..] else { panic!("{list:?}") };
    assert_eq!(
        (guest.vmid, guest.kind, guest.node.as_str(), guest.name.as_deref()),
        (100, GuestKind::Lxc, "pve1", Some("web"))
    );
    assert_eq!((guest.state, guest.uptime, guest.pid), (GuestState::Running, Some(Duration::from_secs(34)), None));
    assert_eq!(guest.tags, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    assert!(!guest.is_template && guest.lock.is_none() && list.unread.is_empty());
}

#[test]
fn a_row_of_a_nodes_containers_with_null_members() {
    let list = Guests::of(
        &data(
            r#"{"data":[{"mem":421888,"pressurecpusome":null,"swap":0,"pressureiofull":null,"uptime":42,"netout":0,"disk":30100074496,"vmid":100,"cpus":2,"maxmem":67108864,"cpu":0.000711724740570615,"status":"running","pressurememorysome":null,"pressureiosome":null,"diskread":0,"pid":317,"maxdisk":270553174016,"maxswap":536870912,"netin":0,"pressurecpufull":null,"type":"lxc","diskwrite":0,"name":"web","pressurememoryfull":null,"tags":"a;b"}]}"#,
        ),
        Some("pve1"),
    )
    .unwrap();
    let [guest] = &list.guests[..] else { panic!("{list:?}") };
    assert_eq!(
        (guest.vmid, guest.state, guest.pid, guest.node.as_str()),
        (100, GuestState::Running, Some(317), "pve1")
    );
}

#[test]
fn a_container_that_is_stopped_has_no_process() {
    let list = Guests::of(
        &data(
            r#"{"data":[{"uptime":0,"maxswap":536870912,"maxdisk":4294967296,"netin":0,"netout":0,"type":"lxc","mem":0,"swap":0,"diskread":0,"tags":"x;y","maxmem":83886080,"cpus":2,"status":"stopped","cpu":0,"disk":0,"vmid":100,"name":"web","diskwrite":0}]}"#,
        ),
        Some("pve1"),
    )
    .unwrap();
    let [guest] = &list.guests[..] else { panic!("{list:?}") };
    assert_eq!((guest.state, guest.uptime, guest.pid), (GuestState::Stopped, None, None));
}

#[test]
fn a_list_without_a_guest() {
    assert_eq!(Guests::of(&data(r#"{"data":[]}"#), Some("pve1")).unwrap(), Guests::default());
}

#[test]
fn tasks_and_what_became_of_them() {
    let upid = Upid::of(&data(r#"{"data":"UPID:pve1:000001B7:00038ACA:6B006C04:vzreboot:100:root@pam!t1:"}"#)).unwrap();
    assert_eq!(
        (upid.node(), upid.pid(), upid.kind(), upid.id(), upid.user()),
        ("pve1", 439, "vzreboot", "100", "root@pam!t1")
    );
    assert_eq!(upid.started_at().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 1_795_189_764);

    let done = r#"{"data":{"pstart":232138,"node":"pve1","exitstatus":"OK","pid":439,"status":"stopped","starttime":1795189764,"id":"100","type":"vzreboot","upid":"UPID:pve1:000001B7:00038ACA:6B006C04:vzreboot:100:root@pam!t1:","user":"root@pam","tokenid":"t1"}}"#;
    assert_eq!(TaskState::of(&data(done)).unwrap(), TaskState::Done { warnings: 0 });

    let failed = r#"{"data":{"pid":494,"exitstatus":"snapshot feature is not available","node":"pve1","pstart":232451,"tokenid":"t1","user":"root@pam","upid":"UPID:pve1:000001EE:00038C03:6B006C07:vzsnapshot:100:root@pam!t1:","type":"vzsnapshot","starttime":1795189767,"id":"100","status":"stopped"}}"#;
    assert_eq!(
        TaskState::of(&data(failed)).unwrap(),
        TaskState::Failed("snapshot feature is not available".to_owned())
    );

    let log = log_lines(&data(
        r#"{"total":2,"data":[{"t":"failed to connect to monitor socket: Connection refused","n":1},{"t":"TASK OK","n":2}]}"#,
    ))
    .unwrap();
    let lines: Vec<_> = log.iter().map(|line| (line.number, line.text.as_str())).collect();
    assert_eq!(lines, [(1, "failed to connect to monitor socket: Connection refused"), (2, "TASK OK")]);
}

#[test]
fn refusals_by_their_kind() {
    for (status, body, kind) in [
        (500, r#"{"data":null,"message":"CT 100 already running\n"}"#, ErrorKind::Conflict),
        (500, r#"{"message":"CT 100 not running\n","data":null}"#, ErrorKind::Conflict),
        (500, r#"{"data":null,"message":"unable to destroy CT 100 - container is running\n"}"#, ErrorKind::Conflict),
        (500, r#"{"message":"CT 100 already exists on node 'pve1'\n","data":null}"#, ErrorKind::AlreadyExists),
        (
            500,
            r#"{"message":"Configuration file 'nodes/pve1/lxc/999.conf' does not exist\n","data":null}"#,
            ErrorKind::NotFound,
        ),
        (
            500,
            r#"{"message":"hostname lookup 'nosuch' failed - failed to get address info for: nosuch: Temporary failure in name resolution\n","data":null}"#,
            ErrorKind::Unavailable,
        ),
        (501, r#"{"message":"Method 'GET /nosuch' not implemented","data":null}"#, ErrorKind::Unsupported),
        (501, "Unexpected content for method 'DELETE'", ErrorKind::Unsupported),
        (
            400,
            r#"{"data":null,"errors":{"upid":"unable to parse worker upid"},"message":"Parameter verification failed.\n"}"#,
            ErrorKind::InvalidInput,
        ),
    ] {
        assert_eq!(refusal(status, "", body).kind(), kind, "{body}");
    }
    for reason in
        ["No ticket", "Authentication failed!", "authentication failure", "Permission denied - invalid csrf token"]
    {
        let error = refusal(401, reason, "");
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unauthenticated, reason));
    }
}

#[test]
fn a_parameter_that_is_not_in_the_schema_is_named() {
    let error = refusal(
        400,
        "Parameter verification failed.",
        r#"{"message":"Parameter verification failed.\n","data":null,"errors":{"nosuch":"property is not defined in schema and the schema does not allow additional properties"}}"#,
    );
    assert_eq!(error.message(), "Parameter verification failed.");
    assert!(error.fact("reason").is_some_and(|reason| reason.starts_with("nosuch: property is not defined")));
}
