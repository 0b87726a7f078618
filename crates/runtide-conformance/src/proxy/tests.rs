use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const REQUEST: &[u8] = b"GET /events?since=1 HTTP/1.1\r\nHost: d\r\n\r\n";
const TIMEOUT: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(150);

/// A server that sends back the bytes that it gets.
async fn echo() -> Endpoint {
    let listener = Listener::bind(&any_port()).await.unwrap();
    let endpoint = listener.endpoint(any_port()).unwrap();
    tokio::spawn(serve(listener));
    endpoint
}

async fn serve(listener: Listener) {
    loop {
        let mut socket = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut bytes = vec![0; 4096];
            while let Ok(n) = socket.read(&mut bytes).await {
                if n == 0 || socket.write_all(&bytes[..n]).await.is_err() {
                    break;
                }
            }
        });
    }
}

fn any_port() -> Endpoint {
    Endpoint::Tcp("127.0.0.1:0".parse().unwrap())
}

async fn proxy() -> Proxy {
    Proxy::start(any_port(), echo().await).await.unwrap()
}

async fn client(proxy: &Proxy) -> Box<dyn Socket> {
    dial(proxy.endpoint()).await.unwrap()
}

/// The bytes that come next, or `None` at the end of the connection.
async fn answer(socket: &mut Box<dyn Socket>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    match tokio::time::timeout(TIMEOUT, socket.read(&mut bytes)).await.expect("bytes or the end") {
        Err(_) | Ok(0) => None,
        Ok(n) => Some(bytes[..n].to_vec()),
    }
}

/// Returns true if neither bytes nor the end come for a moment. A slow machine may say true too early, never false.
async fn is_silent(socket: &mut Box<dyn Socket>) -> bool {
    tokio::time::timeout(MOMENT, socket.read(&mut [0; 1])).await.is_err()
}

async fn ask(socket: &mut Box<dyn Socket>) -> Option<Vec<u8>> {
    if socket.write_all(REQUEST).await.is_err() {
        return None;
    }
    answer(socket).await
}

async fn ask_in_vain(socket: &mut Box<dyn Socket>) -> bool {
    socket.write_all(REQUEST).await.unwrap();
    is_silent(socket).await
}

/// A connection to the proxy, as soon as it listens.
async fn accepted(proxy: &Proxy) -> Box<dyn Socket> {
    let dialling = async {
        loop {
            if let Ok(socket) = dial(proxy.endpoint()).await {
                return socket;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, dialling).await.unwrap()
}

/// Waits for the end of a connection that gets no byte.
async fn closed(mut socket: Box<dyn Socket>) {
    let mut byte = [0; 1];
    let read = tokio::time::timeout(TIMEOUT, socket.read(&mut byte)).await.unwrap();
    assert_eq!(read.unwrap_or_default(), 0);
}

/// The error of a dial.
async fn refusal(proxy: &Proxy) -> Option<io::ErrorKind> {
    dial(proxy.endpoint()).await.err().map(|error| error.kind())
}

async fn until(condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, waited).await.unwrap();
}

#[tokio::test]
async fn bytes_pass_and_connections_are_counted() {
    let proxy = proxy().await;
    let (mut one, mut two) = (client(&proxy).await, client(&proxy).await);
    assert_eq!(ask(&mut one).await.as_deref(), Some(REQUEST));
    assert_eq!(ask(&mut two).await.as_deref(), Some(REQUEST));
    assert_eq!((proxy.live(), proxy.dials().len()), (2, 2));
    assert_eq!(proxy.requests(), ["GET /events?since=1 HTTP/1.1"; 2]);
    drop(one);
    until(|| proxy.live() == 1).await;
}

#[tokio::test]
async fn neither_direction_waits_for_the_other() {
    const BYTES: usize = 32 << 20; // more than any socket holds
    let proxy = proxy().await;
    let (mut read, mut write) = tokio::io::split(client(&proxy).await);
    let writing = async {
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..BYTES / piece.len() {
            write.write_all(&piece).await.unwrap();
        }
    };
    let reading = async {
        let (mut got, mut bytes) = (0, vec![0; 1 << 16]);
        while got < BYTES {
            // The server takes no more before its bytes are taken, and the proxy has bytes for it.
            got += tokio::time::timeout(TIMEOUT, read.read(&mut bytes)).await.expect("bytes").unwrap();
        }
        got
    };
    assert_eq!(tokio::join!(writing, reading).1, BYTES);
}

#[tokio::test]
async fn severing_breaks_open_connections_and_accepts_new_ones() {
    let proxy = proxy().await;
    let mut old = client(&proxy).await;
    assert!(ask(&mut old).await.is_some());
    proxy.sever();
    assert_eq!(answer(&mut old).await, None);
    assert!(ask(&mut client(&proxy).await).await.is_some());
}

/// The bytes that arrive are a beginning of those that were sent, whenever the rule ends. Two threads, so that the end of
/// the rule and the next bytes come to the connection at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_follows_behind_swallowed_bytes() {
    let proxy = proxy().await;
    for round in 0..3_000_u64 {
        let mut socket = client(&proxy).await;
        socket.write_all(b"0").await.unwrap();
        assert_eq!(answer(&mut socket).await.as_deref(), Some(&b"0"[..]));
        proxy.add(Rule::all(Action::Swallow).existing_only());
        let mut is_open = true;
        for byte in [b"1", b"2", b"3"] {
            is_open = is_open && socket.write_all(byte).await.is_ok();
            let until = std::time::Instant::now() + Duration::from_micros(round * 7 % 40);
            while std::time::Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        proxy.heal();
        is_open = is_open && socket.write_all(b"4").await.is_ok();
        let (mut arrived, mut bytes) = (Vec::new(), [0; 64]);
        while is_open
            && arrived.len() < 4
            && let Ok(n @ 1..) = tokio::time::timeout(TIMEOUT, socket.read(&mut bytes)).await.unwrap()
        {
            arrived.extend_from_slice(&bytes[..n]);
        }
        assert!(b"1234".starts_with(&arrived), "round {round}: {}", String::from_utf8_lossy(&arrived));
    }
}

#[tokio::test]
async fn refusing_closes_old_and_new_until_healed() {
    let proxy = proxy().await;
    let mut old = client(&proxy).await;
    assert!(ask(&mut old).await.is_some());
    proxy.add(Rule::all(Action::Refuse));
    assert_eq!(answer(&mut old).await, None);
    assert_eq!(ask(&mut client(&proxy).await).await, None);
    assert_eq!(proxy.dials().len(), 2);
    proxy.heal();
    assert!(ask(&mut client(&proxy).await).await.is_some());
}

#[tokio::test]
async fn half_open_silences_old_connections_and_leaves_new_ones_alone() {
    let proxy = proxy().await;
    let mut old = client(&proxy).await;
    assert!(ask(&mut old).await.is_some());
    proxy.add(Rule::on("/events", Action::Swallow).existing_only());
    assert!(ask_in_vain(&mut old).await);
    assert_eq!(ask(&mut client(&proxy).await).await.as_deref(), Some(REQUEST));
    proxy.heal();
    assert_eq!(answer(&mut old).await, None, "a connection that lost bytes is of no use");
}

#[tokio::test]
async fn stalling_accepts_and_never_answers() {
    let proxy = proxy().await;
    proxy.add(Rule::all(Action::Swallow));
    let mut new = client(&proxy).await;
    assert!(ask_in_vain(&mut new).await);
    drop(new);
    until(|| proxy.live() == 0).await;
}

#[tokio::test]
async fn an_answer_of_the_proxy_ends_the_request() {
    let proxy = proxy().await;
    proxy.add(Rule::on("/events", Action::Answer(b"no".to_vec())));
    let mut new = client(&proxy).await;
    assert_eq!(ask(&mut new).await.as_deref(), Some(&b"no"[..]));
    assert_eq!(answer(&mut new).await, None);
    proxy.add(Rule::all(Action::Refuse));
}

#[tokio::test]
async fn a_delay_holds_the_answer_back() {
    let proxy = proxy().await;
    proxy.add(Rule::on("/events", Action::Delay(MOMENT)));
    let asked = Instant::now();
    assert_eq!(ask(&mut client(&proxy).await).await.as_deref(), Some(REQUEST));
    assert!(asked.elapsed() >= MOMENT);
    proxy.heal();
    proxy.add(Rule::on("/events", Action::Delay(Duration::MAX)));
    let mut new = client(&proxy).await;
    assert!(ask_in_vain(&mut new).await);
    proxy.heal();
    assert_eq!(answer(&mut new).await.as_deref(), Some(REQUEST));
}

#[tokio::test]
async fn a_cut_answer_breaks_off() {
    let proxy = proxy().await;
    proxy.add(Rule::on("/events", Action::Cut(5)));
    let mut new = client(&proxy).await;
    assert_eq!(ask(&mut new).await.as_deref(), Some(&b"GET /"[..]));
    assert_eq!(answer(&mut new).await, None);
}

#[tokio::test]
async fn requests_of_any_line_protocol_are_recognized() {
    let proxy = proxy().await;
    proxy.add(Rule::on("watch", Action::Answer(b"denied\n".to_vec())));
    let say = async |line: &'static [u8]| {
        let mut socket = client(&proxy).await;
        socket.write_all(line).await.unwrap();
        answer(&mut socket).await
    };
    assert_eq!(say(b"list all\n").await.as_deref(), Some(b"list all\n".as_slice()));
    assert_eq!(say(b"watch all\r\n").await.as_deref(), Some(b"denied\n".as_slice()));
    // The body of a request of HTTP is no request, nor is a protocol that is no text.
    let mut socket = client(&proxy).await;
    assert_eq!(ask(&mut socket).await.as_deref(), Some(REQUEST));
    socket.write_all(b"watch").await.unwrap();
    assert_eq!(answer(&mut socket).await.as_deref(), Some(b"watch".as_slice()));
    assert_eq!(say(b"\x16\x03watch\n").await.as_deref(), Some(b"\x16\x03watch\n".as_slice()));
}

#[test]
fn replacing_finds_and_counts_a_match_that_is_split_over_pieces() {
    let mut held = Vec::new();
    let mut out = Vec::new();
    let mut times = 0;
    for piece in ["a b", "ad", " bad b", "a", "dly"] {
        let (passed, found) = link::replace(&mut held, piece.as_bytes(), b"bad", b"BAD");
        out.extend(passed);
        times += found;
    }
    out.extend(held);
    assert_eq!((String::from_utf8(out).unwrap().as_str(), times), ("a BAD BAD BADly", 3));
}

#[cfg(unix)]
#[tokio::test]
async fn it_stands_in_front_of_a_socket_file_too() {
    let folder = std::env::temp_dir().join(format!("runtide-proxy-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("proxy.sock");
    let proxy = Proxy::start(Endpoint::Unix(path.clone()), echo().await).await.unwrap();
    assert!(ask(&mut client(&proxy).await).await.is_some());
    drop(proxy);
    assert!(!path.exists());
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn its_port_is_closed_while_nothing_listens_at_the_target() {
    // It is bound, so that no other test gets the port.
    let target = tokio::net::TcpSocket::new_v4().unwrap();
    target.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let proxy = Proxy::start(any_port(), Endpoint::Tcp(target.local_addr().unwrap())).await.unwrap();
    closed(client(&proxy).await).await;
    assert_eq!(refusal(&proxy).await, Some(io::ErrorKind::ConnectionRefused));
    tokio::spawn(serve(Listener::Tcp(target.listen(16).unwrap())));
    assert_eq!(ask(&mut accepted(&proxy).await).await.as_deref(), Some(REQUEST));
}

#[cfg(unix)]
#[tokio::test]
async fn its_socket_file_is_away_while_nothing_listens_at_the_target() {
    let folder = std::env::temp_dir().join(format!("runtide-proxy-away-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (path, target) = (folder.join("proxy.sock"), Endpoint::Unix(folder.join("target.sock")));
    let proxy = Proxy::start(Endpoint::Unix(path.clone()), target.clone()).await.unwrap();
    // At first the target's file is not there; the second time it is, and has no listener.
    for _ in 0..2 {
        closed(client(&proxy).await).await;
        assert_eq!(refusal(&proxy).await, Some(io::ErrorKind::NotFound));
        proxy.add(Rule::all(Action::Swallow));
        let mut swallowed = accepted(&proxy).await;
        assert!(ask_in_vain(&mut swallowed).await, "this rule needs no target");
        proxy.heal();
        closed(client(&proxy).await).await;
        assert_eq!(refusal(&proxy).await, Some(io::ErrorKind::NotFound));

        let serving = tokio::spawn(serve(Listener::bind(&target).await.unwrap()));
        assert_eq!(ask(&mut accepted(&proxy).await).await.as_deref(), Some(REQUEST));
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
    }
    drop(proxy);
    assert!(!path.exists());
    std::fs::remove_dir_all(folder).unwrap();
}
