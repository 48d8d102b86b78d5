//! What resolverd reads of the main file.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use sluice_config::{
    Edge, Entry, Load,
    value::{NodeName, OneOrMany, SockAddrSpec, User},
};
use sluice_lifecycle::{Graph, NodeKind};

use crate::{kind::ResolverConfig, resolvers::children};

/// The sections `resolver` and `resolverd`.
pub(crate) struct Config {
    pub(crate) resolvers: Vec<Entry<ResolverConfig>>,
    pub(crate) own: ResolverdConfig,
}

/// The section `resolverd`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ResolverdConfig {
    /// Addresses that other programs may ask, over UDP and TCP.
    pub(crate) listen: OneOrMany<ListenConfig>,
    /// Users, by uid or name, whose programs may use the group's own socket, beside root and the daemon's own.
    pub(crate) allow_uid: OneOrMany<User>,
}

/// One address for other programs.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenConfig {
    /// The address and port.
    pub(crate) address: SockAddrSpec,
    /// Who answers.
    pub(crate) resolver: NodeName,
    /// Who may ask; this host alone if absent.
    #[serde(default = "loopback")]
    pub(crate) allow: OneOrMany<Network>,
}

fn loopback() -> OneOrMany<Network> {
    let networks = ["127.0.0.0/8", "::1/128"]
        .into_iter()
        .filter_map(|net| net.parse().ok());
    networks.map(Network).collect()
}

/// A network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub(crate) struct Network(#[schemars(with = "String")] pub(crate) IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let expected = "a network such as `192.0.2.0/24`, or an address";
        net.map(Self)
            .map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &expected))
    }
}

impl Config {
    /// Reads both sections and checks what holds between their parts.
    pub(crate) fn read(load: &mut Load) -> Self {
        let resolvers = load.nodes::<ResolverConfig>("resolver");
        let own: ResolverdConfig = load.section("resolverd").unwrap_or_default();
        let mut edges = Vec::new();
        for entry in &resolvers {
            match &entry.value {
                ResolverConfig::FailOver(pair) => {
                    for (key, child) in [("primary", &pair.primary), ("standby", &pair.standby)] {
                        if load.refer(&entry.place, key, "resolver", child.as_str()) {
                            edges.push(Edge {
                                from: entry.name.clone(),
                                to: child.as_str().to_owned(),
                                place: entry.place.clone(),
                                path: key.into(),
                            });
                        }
                    }
                    if pair.primary == pair.standby {
                        load.error(&entry.place, "standby", "`standby` is the same resolver as `primary`");
                    }
                }
                ResolverConfig::Hickory(config) => {
                    if let Some((ip, server)) = config.unreachable() {
                        let message = format!("the server `{server}` is of the other address family than `{ip}`");
                        load.error(&entry.place, "bind_ip", message);
                    }
                }
                ResolverConfig::CAres(_) | ResolverConfig::DenyAll(_) => {}
            }
        }
        load.refuse_loops("resolver", &edges);
        if let Some(place) = load.place("resolverd") {
            for (index, listen) in own.listen.iter().enumerate() {
                let path = format!("listen[{index}].resolver");
                load.refer(&place, &*path, "resolver", listen.resolver.as_str());
            }
        }
        Self { resolvers, own }
    }

    /// Which resolver asks which.
    pub(crate) fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        for entry in &self.resolvers {
            graph.node(NodeKind::Resolver, &entry.name);
            for child in children(&entry.value) {
                graph.edge((NodeKind::Resolver, &entry.name), (NodeKind::Resolver, child));
            }
        }
        graph
    }
}
