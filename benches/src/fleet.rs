//! Instances like those of a machine full of compose projects.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, SystemTime},
};

use runtide_core::{
    Address, BackendId, ExitStatus, Group, GroupKind, Health, ImageRef, Instance, InstanceId, InstanceKind,
    InstanceState, Port, Protocol,
    watch::{Edge, Signal, SignalBody},
};

/// The id of container `n`: 64 hex digits, as spread as a hash.
pub fn id(n: usize) -> String {
    let mut state = n as u64;
    (0..4).fold(String::with_capacity(64), |id, _| {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        id + &format!("{:016x}", word ^ (word >> 31))
    })
}

/// The labels of container `n`: eight, six of them compose's own.
pub fn labels(n: usize) -> [(&'static str, String); 8] {
    let project = n / 8;
    [
        ("com.docker.compose.project", format!("shop-{project}")),
        ("com.docker.compose.service", format!("web-{}", n % 8)),
        ("com.docker.compose.container-number", "1".to_owned()),
        ("com.docker.compose.oneoff", "False".to_owned()),
        ("com.docker.compose.version", "2.29.1".to_owned()),
        ("com.docker.compose.config-hash", id(n + 7)),
        ("maintainer", "Shop Maintainers <shop@example.org>".to_owned()),
        ("traefik.http.routers.web.rule", format!("Host(`web-{n}.example.org`)")),
    ]
}

/// Container `n`, running, with eight labels, two ports and one address.
pub fn instance(backend: &BackendId, n: usize, health: Health) -> Instance {
    let low = |n: usize| u8::try_from(n % 250).unwrap_or(0);
    let port = |number: u16| Port::new(NonZeroU16::new(number).expect("not 0"), Protocol::Tcp);
    let (project, service) = (format!("shop-{}", n / 8), format!("web-{}", n % 8));
    let name = format!("{project}-{service}-1");
    let host = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 20_000 + u16::try_from(n % 40_000).unwrap_or(0));
    let mut instance = Instance::new(backend.clone(), id(n), name, InstanceKind::Container, InstanceState::Running);
    instance.health = Some(health);
    instance.image = Some(ImageRef::from("registry.example.org/shop/web:1.27.3"));
    instance.labels = Some(labels(n).into_iter().collect());
    instance.ports = Some(vec![port(80).published_at(host), port(443)]);
    let ip = Ipv4Addr::new(172, 18, low(n / 250), low(n));
    instance.addresses = Some(vec![Address::new(IpAddr::V4(ip), format!("{project}_default"))]);
    instance.group = Some(Arc::new(Group::new(GroupKind::Compose, project).with_service(service)));
    instance.created_at = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000 + n as u64));
    instance
}

/// Containers `0..count`, newly made, as a listing returns them.
pub fn rows(backend: &BackendId, count: usize, health: Health) -> Vec<Arc<Instance>> {
    (0..count).map(|n| Arc::new(instance(backend, n, health))).collect()
}

/// The edge of a start or of an end.
pub fn edge(id: &InstanceId, state: InstanceState) -> Signal {
    let exit = state.is_ended().then(|| ExitStatus::code(0));
    Signal::new(SignalBody::Edge(Edge { id: id.clone(), incarnation: None, state, exit, described: None }))
}
