//! [`Networks`]: the daemon's networks, and the containers in them.
//!
//! A network is found by its full id, by its name, or by twelve or more characters of the id, and by nothing else: the daemon would
//! also take a name for the beginning of another network's id.

mod reply;
mod spec;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use async_trait::async_trait;
use runtide_core::{
    Error, ErrorKind, InstanceId, Result,
    backend::CreateGuard,
    manager::{ConnectOptions, Effect, NetworkAttachment, NetworkId, NetworkInfo, NetworkManager, NetworkSpec},
};
use runtide_engine::{Request, create::Creation, late::LATEST_ANSWER, subnets};
use serde::{Deserialize, Serialize};

use self::reply::Member;
pub(super) use self::reply::{Network, Settings};
use super::{
    container::{Call, Container, is_name},
    items,
    objects::NETWORKS,
    spec::{NO_ENDPOINT_OPTIONS, PREDEFINED, is_host_name, shown},
};
use crate::client::Client;

/// How often a create is begun again after another client made a network of the same name at the same time.
const ATTEMPTS: u32 = 8;

/// Longest pause before the second of these attempts; it doubles.
const PAUSE: Duration = Duration::from_millis(20);

/// The [`NetworkManager`] of one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Networks {
    client: Client,
}

impl Networks {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn on<'a>(&'a self, operation: &'static str, network: &'a NetworkId) -> Result<On<'a>> {
        On::new(&self.client, operation, network)
    }
}

#[async_trait]
impl NetworkManager for Networks {
    async fn create(&self, spec: &NetworkSpec) -> Result<NetworkId> {
        const OPERATION: &str = "docker.create_network";
        let site = self.client.site(OPERATION);
        let body = spec::Body::new(spec).map_err(|message| {
            site.error(ErrorKind::InvalidInput, message).with_context("network", shown(&spec.name))
        })?;
        let made = create(&self.client, OPERATION, &body);
        self.client.within(site, self.client.deadline(), made).await
    }

    async fn remove(&self, network: &NetworkId) -> Result<Effect> {
        let on = self.on("docker.remove_network", network)?;
        on.bounded(remove(on)).await
    }

    async fn list(&self) -> Result<Vec<NetworkInfo>> {
        const OPERATION: &str = "docker.list_networks";
        let site = self.client.site(OPERATION);
        let listed = async {
            let networks = self.client.call(OPERATION, Request::get("/networks"), self.client.deadline()).await?;
            let networks: Vec<Network> = items(&self.client, OPERATION, &networks)?;
            let members = members(&self.client, OPERATION).await?;
            Ok(networks.into_iter().map(|network| network.info(&members)).collect())
        };
        self.client.within(site, self.client.deadline(), listed).await
    }

    async fn inspect(&self, network: &NetworkId) -> Result<NetworkInfo> {
        let on = self.on("docker.inspect_network", network)?;
        on.bounded(async {
            let network = on.network().await?;
            Ok(network.info(&members(on.client, on.operation).await?))
        })
        .await
    }

    async fn connect(&self, network: &NetworkId, instance: &InstanceId, options: ConnectOptions) -> Result<Effect> {
        let on = self.on("docker.connect_network", network)?;
        let call = Call::on(&self.client, on.operation, instance)?;
        if let Some(alias) = options.aliases.iter().find(|alias| !is_host_name(alias)) {
            let message = format!("'{}' is not an alias: it is no host name", shown(alias));
            return Err(on.error(ErrorKind::InvalidInput, message));
        }
        let mut joined = NetworkAttachment::new(network.clone()).with_aliases(options.aliases);
        joined.address = options.address;
        on.bounded(connect(on, call, &joined)).await
    }

    async fn disconnect(&self, network: &NetworkId, instance: &InstanceId) -> Result<Effect> {
        let on = self.on("docker.disconnect_network", network)?;
        let call = Call::on(&self.client, on.operation, instance)?;
        on.bounded(disconnect(on, call)).await
    }
}

/// One call on one network.
#[derive(Debug, Clone, Copy)]
struct On<'a> {
    client: &'a Client,
    operation: &'static str,
    id: &'a str,
}

impl<'a> On<'a> {
    /// Refuses an id that could be more than an id, since it becomes a part of a path.
    fn new(client: &'a Client, operation: &'static str, network: &'a NetworkId) -> Result<Self> {
        let on = Self { client, operation, id: network.as_str() };
        if is_name(on.id) {
            return Ok(on);
        }
        let message =
            "not the id or name of a network: expected letters, digits, '_', '.', '-', the first a letter or digit";
        Err(client.site(operation).error(ErrorKind::InvalidInput, message).with_context("network", shown(on.id)))
    }

    fn bounded<T>(self, work: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T>> {
        self.client.within(self.client.site(self.operation), self.client.deadline(), work)
    }

    fn error(self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.located(self.client.site(self.operation).error(kind, message))
    }

    fn located(self, error: Error) -> Error {
        error.with_context("network", self.id)
    }

    /// The network with this very id or name.
    async fn network(self) -> Result<Network> {
        find(self.client, self.operation, self.id).await.map_err(|error| self.located(error))
    }

    async fn network_if_present(self) -> Result<Option<Network>> {
        present(self.network().await)
    }
}

/// The network with this very id or name, inspected now.
pub(super) async fn find(client: &Client, operation: &'static str, id: &str) -> Result<Network> {
    let missing = || client.site(operation).error(ErrorKind::NotFound, "there is no such network");
    let found = client.call(operation, Request::get(format!("/networks/{id}")), client.deadline()).await;
    let network = found.map_err(|error| match error.message() {
        // The beginnings of two ids.
        message if message.contains("based on ID prefix") => missing(),
        message if message.contains("based on name") => client.site(operation).error(ErrorKind::Conflict, message),
        _ => error,
    })?;
    let network: Network = super::item(client, operation, &network)?;
    if network.is_named(id) { Ok(network) } else { Err(missing()) }
}

fn present<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every container with its networks. The daemon's own list of a network's members leaves out what does not run (trap D34).
async fn members(client: &Client, operation: &'static str) -> Result<Vec<Member>> {
    let listed = client.call(operation, Request::get("/containers/json?all=1"), client.deadline()).await?;
    items(client, operation, &listed)
}

/// The daemon allows two networks of one name, and compares names only as the create begins: what was made is taken back if another
/// client was as fast.
async fn create(client: &Client, operation: &'static str, body: &spec::Body<'_>) -> Result<NetworkId> {
    let site = client.site(operation);
    let taken = || site.error(ErrorKind::AlreadyExists, "this name is taken").with_context("network", body.name());
    for attempt in 0..ATTEMPTS {
        let creation = Creation::new(client, operation, body.name(), &[NETWORKS]);
        let request = Request::post("/networks/create").with_json(&body.with_label(creation.label()));
        let made = creation.run(make(client.clone(), operation, request, body.name().to_owned())).await;
        let (id, guard) = made.map_err(|error| match error.kind() {
            ErrorKind::Conflict => taken(),
            ErrorKind::PermissionDenied if PREDEFINED.contains(&body.name()) => taken(),
            _ if error.message().contains("IPv6 address pool") => {
                let reason = "this server picks no range of IPv6 addresses by itself: give it one";
                let error = site.error(ErrorKind::Unsupported, reason).with_context("network", body.name());
                error.with_context("feature", "networks_manage").with_context("reason", reason)
            }
            // 403 in old versions, 400 in new ones.
            _ if error.message().to_ascii_lowercase().contains("overlap") => {
                site.error(ErrorKind::Conflict, error.message()).with_context("network", body.name())
            }
            _ => error.with_context("network", body.name()),
        })?;
        let others = async {
            let filters = serde_json::json!({ "name": [body.name()] });
            let request = Request::get("/networks").with_query("filters", filters);
            let named = client.call(operation, request, client.deadline()).await?;
            let named: Vec<Network> = items(client, operation, &named)?;
            Ok(named.iter().any(|network| network.name == body.name() && network.id != id))
        };
        match others.await {
            Ok(false) => {
                guard.keep();
                return Ok(NetworkId::from(id));
            }
            Ok(true) => guard.undo().await,
            Err(error) => return guard.settle(Err(error)).await,
        }
        // The other client may have taken its own back as well. Pauses that differ let one of them through.
        let longest = PAUSE.saturating_mul(1 << attempt);
        tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
    }
    Err(taken())
}

/// Makes a network.
async fn make(
    client: Client,
    operation: &'static str,
    request: Request,
    name: String,
) -> Result<(String, CreateGuard)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Made {
        id: String,
    }
    let site = client.site(operation);
    let made = client.call(operation, request, LATEST_ANSWER).await?;
    let Made { id } = serde_json::from_slice(&made).map_err(|error| site.undecodable(error))?;
    let guard = CreateGuard::new(site, name, client.deadline(), {
        let (client, id) = (client.undoing(), id.clone());
        move || {
            let (client, id) = (client.clone(), id.clone());
            async move { delete(&client, operation, &id).await.map(drop) }
        }
    });
    Ok((id, guard))
}

/// Removes the network with this id; `Unchanged` if it is gone.
async fn delete(client: &Client, operation: &'static str, id: &str) -> Result<Effect> {
    let deleted = client.call(operation, Request::delete(format!("/networks/{id}")), client.deadline()).await;
    Ok(present(deleted)?.map_or(Effect::Unchanged, |_| Effect::Changed))
}

async fn remove(on: On<'_>) -> Result<Effect> {
    let Some(network) = on.network_if_present().await? else { return Ok(Effect::Unchanged) };
    let in_use = async || {
        let members = network.members(&members(on.client, on.operation).await?);
        let Some(first) = members.first() else { return Ok(()) };
        let message = subnets::in_use(members.len());
        Err(on.error(ErrorKind::Conflict, message).with_context("instance", first))
    };
    in_use().await?;
    match delete(on.client, on.operation, &network.id).await {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            // A container joined this moment, or it is one of the daemon's own.
            in_use().await?;
            if error.message().contains("active endpoints") {
                return Err(on.error(ErrorKind::Conflict, error.message()));
            }
            Err(on.located(error))
        }
        deleted => deleted.map_err(|error| on.located(error)),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Connect<'a> {
    container: &'a str,
    endpoint_config: bollard::models::EndpointSettings,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Disconnect<'a> {
    container: &'a str,
    force: bool,
}

async fn connect(on: On<'_>, call: Call<'_>, joined: &NetworkAttachment) -> Result<Effect> {
    let network = on.network().await?;
    if let Some(refused) = refused(&network, joined) {
        return Err(on.located(refused_at(on.client.site(on.operation), refused)));
    }
    let container = call.inspect().await?;
    if let Some(effect) = already(on, call, &network, &container, joined)? {
        return Ok(effect);
    }
    // The daemon would refuse it as well, and leave the container with a connection that is none.
    if let Some(address) = joined.address.filter(|address| container.state.running && network.is_taken(*address)) {
        return Err(call.located(on.error(ErrorKind::Conflict, format!("{address} is another container's"))));
    }
    match attach(on.client, on.operation, &network.id, &container.id, joined).await {
        Ok(()) => Ok(Effect::Changed),
        Err(error) => {
            // Another client may have been faster.
            if let Some(container) = call.inspect_if_present().await?
                && let Some(effect) = already(on, call, &network, &container, joined)?
            {
                return Ok(effect);
            }
            Err(call.located(on.located(error)))
        }
    }
}

/// Connects a container that is not connected.
pub(super) async fn attach(
    client: &Client,
    operation: &'static str,
    network: &str,
    container: &str,
    joined: &NetworkAttachment,
) -> Result<()> {
    let body = Connect { container, endpoint_config: super::spec::endpoint(joined) };
    let request = Request::post(format!("/networks/{network}/connect")).with_json(&body);
    client.call(operation, request, client.deadline()).await.map(drop).map_err(|error| {
        // "Address already in use", with a status that differs between versions.
        if error.message().to_ascii_lowercase().contains("address already in use") {
            return client.site(operation).error(ErrorKind::Conflict, error.message());
        }
        error
    })
}

/// `Unchanged` if the container is connected as it is asked for, `None` if it is not connected.
fn already(
    on: On<'_>,
    call: Call<'_>,
    network: &Network,
    container: &Container,
    joined: &NetworkAttachment,
) -> Result<Option<Effect>> {
    let is_running = container.state.running;
    let Some(endpoint) = network.endpoint_of(&container.network_settings.networks, is_running) else { return Ok(None) };
    let conflict = |message: String| Err(call.located(on.error(ErrorKind::Conflict, message)));
    if let Some(alias) = joined.aliases.iter().find(|alias| !endpoint.aliases.contains(alias)) {
        return conflict(format!("it is connected, and not as '{alias}': disconnect it first"));
    }
    match joined.address {
        Some(address) if !endpoint.has(address) => {
            conflict(format!("it is connected, and not at {address}: disconnect it first"))
        }
        _ => Ok(Some(Effect::Unchanged)),
    }
}

/// Why a container cannot join the network in this way, known before anything is changed.
pub(super) fn refused(network: &Network, joined: &NetworkAttachment) -> Option<(ErrorKind, String)> {
    let is_plain = joined.aliases.is_empty() && joined.address.is_none();
    if !is_plain && PREDEFINED.contains(&network.name.as_str()) {
        return Some((ErrorKind::Unsupported, NO_ENDPOINT_OPTIONS.to_owned()));
    }
    subnets::refused(&network.subnets(), joined.address?)
}

/// The error of such a refusal.
pub(super) fn refused_at(site: runtide_core::backend::CallSite<'_>, (kind, message): (ErrorKind, String)) -> Error {
    let error = site.error(kind, message.clone());
    match kind {
        ErrorKind::Unsupported => error.with_context("feature", "networks_connect").with_context("reason", message),
        _ => error,
    }
}

async fn disconnect(on: On<'_>, call: Call<'_>) -> Result<Effect> {
    let Some(network) = on.network_if_present().await? else { return Ok(Effect::Unchanged) };
    let connected = async || {
        let container = call.inspect_if_present().await?;
        Ok::<_, Error>(container.filter(|container| {
            network.endpoint_of(&container.network_settings.networks, container.state.running).is_some()
        }))
    };
    let Some(container) = connected().await? else { return Ok(Effect::Unchanged) };
    let body = Disconnect { container: &container.id, force: false };
    let request = Request::post(format!("/networks/{}/disconnect", network.id)).with_json(&body);
    match on.client.call(on.operation, request, on.client.deadline()).await {
        Ok(_) => Ok(Effect::Changed),
        Err(error) => match connected().await? {
            None => Ok(Effect::Unchanged),
            Some(_) => Err(call.located(on.located(error))),
        },
    }
}

/// A container's side of a network, as its inspection shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Endpoint {
    #[serde(rename = "NetworkID")]
    network_id: String,
    /// Empty while the container does not run, and after a connection that failed.
    #[serde(rename = "EndpointID")]
    id: String,
    gateway: String,
    aliases: Vec<String>,
    #[serde(rename = "IPAMConfig")]
    ipam: Fixed,
    #[serde(rename = "IPAddress")]
    ip: String,
    #[serde(rename = "GlobalIPv6Address")]
    ipv6: String,
}

/// The address that was asked for; a container that does not run has no other.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fixed {
    #[serde(rename = "IPv4Address")]
    ipv4: String,
    #[serde(rename = "IPv6Address")]
    ipv6: String,
}

impl Endpoint {
    fn has(&self, address: IpAddr) -> bool {
        [&self.ip, &self.ipv6, &self.ipam.ipv4, &self.ipam.ipv6].iter().any(|text| text.parse() == Ok(address))
    }
}

/// The networks of a container, by the names that they had when it joined them.
pub(super) type Endpoints = BTreeMap<String, Endpoint>;
