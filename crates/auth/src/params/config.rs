//! The keys of `username_params`.

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_addr::Host;
use sluice_config::value::OneOrMany;
use sluice_config::{Misfit, NotYet};

use super::{HostKey, UsernameParams};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "UsernameParams")]
pub(super) struct Form {
    /// The keys whose values make the host, in this order.
    #[serde(alias = "keys")]
    keys_for_host: OneOrMany<String>,
    /// The key whose value chooses among the host's addresses.
    resolve_sticky_key: Option<String>,
    /// Whether a key needs all those before it; floating keys aside.
    require_hierarchy: bool,
    /// Keys of the host that need none before them, and that none needs.
    #[serde(alias = "floating")]
    floating_keys: OneOrMany<String>,
    /// Whether unknown keys are refused rather than passed over.
    reject_unknown_keys: bool,
    /// Whether a key that is given twice is refused; else the last counts.
    reject_duplicate_keys: bool,
    /// What stands between the values in the host.
    separator: String,
    /// What the host ends with.
    #[serde(alias = "suffix")]
    domain_suffix: Option<String>,
    /// The port for clients that came by HTTP.
    http_port: u16,
    /// The port for clients that came by SOCKS5.
    #[serde(alias = "socks_port")]
    socks5_port: u16,
    /// Whether the user's name ends before the first `+`.
    #[serde(alias = "auth_strip_suffix")]
    strip_suffix_for_auth: bool,
    // vey's form of logins, `name-key-value`.
    #[serde(alias = "required")]
    #[schemars(skip)]
    required_keys: Option<NotYet>,
    #[serde(alias = "optional")]
    #[schemars(skip)]
    optional_keys: Option<NotYet>,
    #[schemars(skip)]
    reject_unknown: Option<NotYet>,
    #[schemars(skip)]
    param_separator: Option<NotYet>,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            keys_for_host: OneOrMany::default(),
            resolve_sticky_key: None,
            require_hierarchy: true,
            floating_keys: OneOrMany::default(),
            reject_unknown_keys: true,
            reject_duplicate_keys: true,
            separator: "-".to_owned(),
            domain_suffix: None,
            http_port: 10000,
            socks5_port: 10001,
            strip_suffix_for_auth: true,
            required_keys: None,
            optional_keys: None,
            reject_unknown: None,
            param_separator: None,
        }
    }
}

impl TryFrom<Form> for UsernameParams {
    type Error = Misfit;

    fn try_from(form: Form) -> Result<Self, Misfit> {
        check_keys("keys_for_host", &form.keys_for_host)?;
        check_keys("floating_keys", &form.floating_keys)?;
        check_keys("resolve_sticky_key", form.resolve_sticky_key.as_slice())?;
        if let Some(key) = form.floating_keys.iter().find(|key| !form.keys_for_host.contains(key)) {
            return Err(Misfit::at(
                "floating_keys",
                format!("`{key}` is none of the keys in `keys_for_host`"),
            ));
        }
        if Host::parse_domain(&format!("a{}a", form.separator)).is_err() {
            let message = format!("`{}` cannot stand in a domain name", form.separator);
            return Err(Misfit::at("separator", message));
        }
        for (key, port) in [("http_port", form.http_port), ("socks5_port", form.socks5_port)] {
            if port == 0 {
                return Err(Misfit::at(key, "expected a port from 1 to 65535, found `0`"));
            }
        }
        let floats = |key: &String| form.floating_keys.contains(key);
        let host_key = |key: &String| HostKey {
            name: key.as_str().into(),
            floats: floats(key),
        };
        Ok(Self {
            keys: form.keys_for_host.iter().map(host_key).collect(),
            domain_suffix: form
                .domain_suffix
                .as_deref()
                .map(suffix)
                .transpose()?
                .unwrap_or_default(),
            resolve_sticky_key: form.resolve_sticky_key.map(Into::into),
            require_hierarchy: form.require_hierarchy,
            reject_unknown_keys: form.reject_unknown_keys,
            reject_duplicate_keys: form.reject_duplicate_keys,
            separator: form.separator.into(),
            http_port: form.http_port,
            socks5_port: form.socks5_port,
            strip_suffix_for_auth: form.strip_suffix_for_auth,
        })
    }
}

/// Refuses keys that no login could name, and those that are there twice.
fn check_keys(at: &str, keys: &[String]) -> Result<(), Misfit> {
    for (index, key) in keys.iter().enumerate() {
        if key.is_empty() {
            return Err(Misfit::at(at, "a key is empty"));
        }
        if key.contains(['+', '=', ':']) {
            return Err(Misfit::at(
                at,
                format!("`{key}` holds a `+`, `=` or `:`, which no key can"),
            ));
        }
        if keys.iter().take(index).any(|earlier| earlier == key) {
            return Err(Misfit::at(at, format!("`{key}` is there twice")));
        }
    }
    Ok(())
}

/// The suffix with its leading dot, in a domain's one form.
fn suffix(text: &str) -> Result<Box<str>, Misfit> {
    match Host::parse_domain(text.strip_prefix('.').unwrap_or(text)) {
        Ok(domain) => Ok(format!(".{domain}").into()),
        Err(why) => Err(Misfit::at(
            "domain_suffix",
            format!("`{text}` is no domain name: {why}"),
        )),
    }
}
