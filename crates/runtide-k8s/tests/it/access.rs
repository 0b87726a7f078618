//! Credentials, on their way to a server.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use runtide_core::{ErrorKind, ListOptions, RuntimeBackend};
use runtide_k8s::{Access, Config, Impersonation, KubeBackend, User};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::scripted::{Reply, Server, list};

fn backend(access: Access) -> KubeBackend {
    KubeBackend::new(Config::new(access)).unwrap()
}

/// A server that takes this token only.
async fn guarded(token: &'static str) -> Server {
    Server::new(move |request| {
        if request.head.contains(&format!("\r\nauthorization: bearer {token}\r\n")) {
            Reply::ok(&list("7", "", &[]))
        } else {
            Reply::refusal(401, "Unauthorized")
        }
    })
    .await
}

#[tokio::test]
async fn a_token_that_was_replaced_in_its_file_is_used_by_the_next_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "old").unwrap();
    let server = guarded("new").await;
    let file = backend(Access::new(server.url()).with_user(User::TokenFile { path: path.clone(), otherwise: None }));
    let error = file.list_instances(ListOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), server.asked().len()), (ErrorKind::Unauthenticated, 2), "asked once more: {error}");
    std::fs::write(&path, "new\n").unwrap();
    file.list_instances(ListOptions::default()).await.unwrap();
    let fixed = backend(Access::new(server.url()).with_user(User::Token("old".into())));
    fixed.list_instances(ListOptions::default()).await.unwrap_err();
    assert_eq!(server.asked().len(), 4, "a token that cannot change is not tried again");
}

#[tokio::test]
async fn a_kubeconfig_with_a_plugin_reaches_the_server_and_a_refusal_runs_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    let script = folder.path().join("plugin.sh");
    std::fs::write(&script, format!("echo x >> {0}\nn=$(wc -l < {0})\nprintf '{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{{\"token\":\"t'$n'\"}}}}'\n", count.display())).unwrap();
    let server = guarded("t2").await;
    let file = folder.path().join("config");
    let text = format!(
        "current-context: c\nclusters: [{{name: c, cluster: {{server: '{}'}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u, namespace: web}}}}]\nusers: [{{name: u, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, command: sh, args: ['{}'], interactiveMode: IfAvailable}}}}}}]\n",
        server.url(),
        script.display()
    );
    std::fs::write(&file, text).unwrap();
    // The environment of a test is its own process's: this is the only test here that sets it.
    let program = std::env::current_exe().unwrap();
    let list = format!("/nonexistent:{}", file.display());
    let run = move || {
        let mut program = std::process::Command::new(program);
        program.args(["--exact", "access::the_environment_of_another_process", "--ignored"]);
        program.env("KUBECONFIG", list).stdout(std::process::Stdio::null()).status()
    };
    let status = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    assert!(status.success());
    assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 2);
    assert!(
        server.asked().iter().all(|request| request.path.starts_with("/api/v1/namespaces/web/pods")),
        "{:?}",
        server.asked()
    );
}

#[tokio::test]
#[ignore = "run by a_kubeconfig_with_a_plugin_reaches_the_server_and_a_refusal_runs_it_again"]
async fn the_environment_of_another_process() {
    let backend = KubeBackend::new(Config::from_env().unwrap()).unwrap();
    assert_eq!(backend.id().as_str(), "k8s:c");
    backend.list_instances(ListOptions::default()).await.unwrap();
}

#[tokio::test]
async fn another_user_is_impersonated() {
    let server = Server::new(|request| {
        assert!(request.head.contains("impersonate-user: robin") && request.head.contains("impersonate-group: dev"));
        Reply::ok(&list("7", "", &[]))
    })
    .await;
    let other = Impersonation::default().with_user("robin").with_groups(vec!["dev".to_owned()]);
    backend(Access::new(server.url()).with_impersonate(other)).list_instances(ListOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_server_is_reached_through_a_proxy_with_a_login() {
    let server = Server::new(|_| Reply::ok(&list("7", "", &[]))).await;
    let target = server.address();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let tunnels = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tunnels);
    let proxying = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (mut head, mut one) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") {
                if client.read(&mut one).await.unwrap_or(0) == 0 {
                    break;
                }
                head.push(one[0]);
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            // me:p@w
            if !head.starts_with("connect api.example.com:6443 ")
                || !head.contains("proxy-authorization: basic bwu6ceb3\r\n")
            {
                let _ = client.write_all(b"HTTP/1.1 407 No\r\n\r\n").await;
                continue;
            }
            count.fetch_add(1, Ordering::SeqCst);
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let mut upstream = TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut upstream).await });
        }
    });
    let access = |login: &str| Access::new("http://api.example.com:6443").with_proxy(format!("http://{login}@{proxy}"));
    backend(access("me:p%40w")).list_instances(ListOptions::default()).await.unwrap();
    assert_eq!(tunnels.load(Ordering::SeqCst), 1);
    let error = backend(access("you:s3cret")).list_instances(ListOptions::default()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && !format!("{error:?} {error:#}").contains("s3cret"), "{error:?}");
    proxying.abort();
}
