//! Access rules on addresses, names, ports and user agents.
//!
//! A rule is a table from records to [`Action`]s, with one action for what no record is about. It is read from the
//! configuration in one of the forms of [`RuleForm`], and then only asked: `check` gives an action, `find` tells a record's
//! action from the lack of one. Nothing is looked up and nothing waits.
//!
//! - [`IngressRule`], [`EgressRule`], [`NetworkRule`]: the longest network that holds an address.
//! - [`ExactHostRule`], [`ChildDomainRule`], [`RegexDomainRule`]: hosts; [`DstHostSet`] puts them and
//!   [`DstSubnetRule`] together.
//! - [`InspectPolicy`]: what is done with streams to a host.
//! - [`PortRule`], [`ProxyRequestRule`], [`UserAgentRule`], [`RegexRule`]: what their names say.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation))]

mod action;
mod dst_host;
mod form;
mod host;
mod inspect;
mod network;
mod pattern;
mod port;
#[cfg(any(test, feature = "cases"))]
#[doc(hidden)]
pub mod properties;
mod user_agent;

pub use action::Action;
pub use dst_host::DstHostSet;
pub use form::RuleForm;
pub use host::{ChildDomainRule, ExactHostRule};
pub use inspect::InspectPolicy;
pub use network::{DstSubnetRule, EgressRule, IngressRule, NetworkRule};
pub use pattern::{ChildPatterns, RegexDomainRecord, RegexDomainRule, RegexRule};
pub use port::{PortRule, ProxyRequestRule};
pub use user_agent::UserAgentRule;
