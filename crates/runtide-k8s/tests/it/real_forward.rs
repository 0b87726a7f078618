//! A port of a real pod, through a real kubelet and containerd.

use std::{io, num::NonZeroU16, time::Duration};

use runtide_conformance::testbed::Testbed;
use runtide_core::{ErrorKind, RuntimeBackend as _, manager::RemoveOptions};
use runtide_k8s::KubeBackend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::real::{Space, access, backend, runs, testbed};

const LENGTH: usize = 10 << 20;
const LIMIT: Duration = Duration::from_secs(180);

/// Bytes that no part of the way could make up: each depends on its position.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut all: Vec<u8> = std::iter::repeat_with(&mut next).take(length.div_ceil(8)).flatten().collect();
    all.truncate(length);
    all
}

/// The output of the pod's script: as many bytes of the numbers from 1.
fn numbers(length: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(length + 8);
    let mut n = 1_u64;
    while all.len() < length {
        all.extend_from_slice(format!("{n}\n").as_bytes());
        n += 1;
    }
    all.truncate(length);
    all
}

async fn connect(cluster: &KubeBackend, id: &runtide_core::InstanceId, port: u16) -> runtide_k8s::PortForward {
    cluster.forward(id, NonZeroU16::new(port).unwrap()).await.unwrap()
}

/// Waits until something listens.
async fn listens(cluster: &KubeBackend, id: &runtide_core::InstanceId, port: u16) {
    let waiting = async {
        loop {
            let mut stream = connect(cluster, id, port).await;
            // One that is refused ends at once; one that is taken may be silent.
            let read = tokio::time::timeout(Duration::from_millis(1500), stream.read(&mut [0])).await;
            match read {
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Ok(Err(error)) => panic!("{error}"),
                Ok(Ok(_)) | Err(_) => return,
            }
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap();
}

#[tokio::test]
async fn ten_megabytes_pass_in_both_directions_and_a_port_that_nothing_listens_on_says_so() {
    let Some([admin, _]) = testbed(["RUNTIDE_TEST_K8S", "RUNTIDE_TEST_K8S_NODE"]) else { return };
    let space = Space::new(&admin, None).await;
    let cluster = backend(access(&admin));
    let script = format!(
        "trap 'exit 0' TERM; seq 1 2000000 | head -c {LENGTH} >/tmp/numbers; \
         nc -ll -p 8080 -e cat & nc -ll -p 8081 -e cat /tmp/numbers & wait"
    );
    let id = space.pod("ports", "Never", Some(&script)).await;
    runs(&cluster, &id).await;
    for port in [8080, 8081] {
        listens(&cluster, &id, port).await;
    }

    // An echo: it is written while it is read.
    let sent = noise(LENGTH);
    let expected = blake3::hash(&sent);
    let (mut near, mut far) = tokio::io::split(connect(&cluster, &id, 8080).await);
    let writing = async move {
        far.write_all(&sent).await.unwrap();
        far
    };
    let reading = async {
        let mut got = vec![0; LENGTH];
        near.read_exact(&mut got).await.unwrap();
        blake3::hash(&got)
    };
    let (_far, digest) = tokio::time::timeout(LIMIT, async { tokio::join!(writing, reading) }).await.unwrap();
    assert_eq!(digest, expected);

    // All that a process writes before it ends is there, and so is its end, each time.
    let expected = blake3::hash(&numbers(LENGTH));
    for round in 0..5 {
        let mut stream = connect(&cluster, &id, 8081).await;
        let mut got = Vec::new();
        tokio::time::timeout(LIMIT, stream.read_to_end(&mut got)).await.unwrap().unwrap();
        assert_eq!((got.len(), blake3::hash(&got)), (LENGTH, expected), "round {round}");
    }

    let mut refused = connect(&cluster, &id, 9).await;
    let error = tokio::time::timeout(LIMIT, refused.read(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    assert!(error.to_string().contains("port 9 "), "the node's words: {error}");

    cluster.lifecycle().unwrap().remove(&id, RemoveOptions::default().with_kill()).await.unwrap();
    let gone = cluster.forward(&id, NonZeroU16::new(8080).unwrap()).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    space.clear().await;
}

#[tokio::test]
async fn a_download_whose_server_or_node_is_killed_is_an_error_and_never_an_end() {
    let Some([admin, _, _]) = testbed(["RUNTIDE_TEST_K8S", "RUNTIDE_TEST_K8S_NODE", "RUNTIDE_TESTBED"]) else { return };
    let space = Space::alone(&admin).await;
    let cluster = backend(access(&admin));
    let script = "trap 'exit 0' TERM; nc -ll -p 8080 -e yes & wait";
    let id = space.pod("endless", "Never", Some(script)).await;
    runs(&cluster, &id).await;
    listens(&cluster, &id, 8080).await;
    for daemon in ["k8s", "k8s-node"] {
        let control = Testbed::of(daemon).unwrap();
        let mut stream = connect(&cluster, &id, 8080).await;
        stream.read_exact(&mut vec![0; 100_000]).await.unwrap();
        let killing = tokio::spawn(async move {
            control.run(&["kill"]).await.unwrap();
            control
        });
        let error = tokio::time::timeout(LIMIT, async {
            let mut piece = vec![0; 64 << 10];
            loop {
                match stream.read(&mut piece).await {
                    Ok(0) => panic!("an end that the node did not report, as {daemon} was killed"),
                    Ok(_) => {}
                    Err(error) => return error,
                }
            }
        });
        assert_eq!(error.await.unwrap().kind(), io::ErrorKind::ConnectionAborted, "{daemon}");
        killing.await.unwrap().run(&["start"]).await.unwrap();
        // The pod runs on, and so does what listens in it. A node that was just started does not know its pods yet.
        let again = async {
            loop {
                match cluster.forward(&id, NonZeroU16::new(8080).unwrap()).await {
                    Err(error) if error.kind() == ErrorKind::Unavailable => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    connected => return connected.unwrap(),
                }
            }
        };
        let mut stream = tokio::time::timeout(LIMIT, again).await.unwrap();
        stream.read_exact(&mut vec![0; 100_000]).await.unwrap();
    }
    space.clear().await;
}
