//! Parameters that a client writes behind its user name: `base+key1=value1+key2=value2`.
//!
//! They choose the next proxy of an escaper that has one. The login is cut at each `+`, and never searched for keys.

mod config;
#[cfg(test)]
mod tests;

use serde::Deserialize;
use sluice_addr::{Host, ParseHostError, Upstream};
use sluice_config::schema_as;
use thiserror::Error;

use config::Form;

/// What a server's `username_params` says, and what comes of a login by it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Form")]
pub struct UsernameParams {
    keys: Vec<HostKey>,
    resolve_sticky_key: Option<Box<str>>,
    require_hierarchy: bool,
    reject_unknown_keys: bool,
    reject_duplicate_keys: bool,
    separator: Box<str>,
    /// With a dot at its start; may be empty.
    domain_suffix: Box<str>,
    http_port: u16,
    socks5_port: u16,
    strip_suffix_for_auth: bool,
}

schema_as!(UsernameParams => Form);

/// A key whose value is a part of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostKey {
    name: Box<str>,
    /// Whether it may be there without those before it.
    floats: bool,
}

/// How a client came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CameBy {
    /// By HTTP.
    Http,
    /// By SOCKS5.
    Socks5,
}

/// The next proxy that a login asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressUpstream {
    /// Its address, in place of the escaper's own.
    pub addr: Upstream,
    /// What its addresses are chosen by, so that the same is taken each time.
    pub resolve_sticky_key: Option<Box<str>>,
}

/// Why the parameters of a login are refused: HTTP 400, SOCKS5 reply 0x02.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParamsError {
    /// A key is given twice.
    #[error("the parameter `{key}` is given twice")]
    Duplicate {
        /// It.
        key: Box<str>,
    },
    /// The values make no host.
    #[error("`{name}` is no host: {source}")]
    Host {
        /// What they make.
        name: Box<str>,
        /// Why it is none.
        source: ParseHostError,
    },
    /// A key stands without one that comes before it in the hierarchy.
    #[error("the parameter `{key}` needs `{missing}` too")]
    Hierarchy {
        /// It.
        key: Box<str>,
        /// The one that is missing.
        missing: Box<str>,
    },
    /// What stands between two `+` is no `key=value`, or one of the sides is empty.
    #[error("`{part}` is no `key=value`")]
    Pair {
        /// It.
        part: Box<str>,
    },
    /// A key that the server does not know.
    #[error("the parameter `{key}` is unknown")]
    Unknown {
        /// It.
        key: Box<str>,
    },
}

impl UsernameParams {
    /// The part of a login that is looked up and logged as the user's name.
    pub fn user<'l>(&self, login: &'l str) -> &'l str {
        match login.split_once('+') {
            Some((base, _)) if self.strip_suffix_for_auth => base,
            _ => login,
        }
    }

    /// The next proxy that a login asks for; `None` leaves the escaper's own.
    ///
    /// # Errors
    /// [`ParamsError`], see its variants.
    pub fn egress(&self, login: &str, came_by: CameBy) -> Result<Option<EgressUpstream>, ParamsError> {
        let Some((_, params)) = login.split_once('+') else {
            return Ok(None);
        };
        let values = self.values(params)?;
        self.check_hierarchy(&values)?;
        let parts: Vec<&str> = values.host.iter().copied().flatten().collect();
        if parts.is_empty() {
            return Ok(None);
        }
        let host = self.host(&parts)?;
        let port = match came_by {
            CameBy::Http => self.http_port,
            CameBy::Socks5 => self.socks5_port,
        };
        Ok(Some(EgressUpstream {
            addr: Upstream { host, port },
            resolve_sticky_key: values.sticky.map(Into::into),
        }))
    }

    fn values<'l>(&self, params: &'l str) -> Result<Values<'l>, ParamsError> {
        let mut values = Values {
            host: vec![None; self.keys.len()],
            sticky: None,
        };
        for part in params.split('+') {
            let pair = part
                .split_once('=')
                .filter(|(key, value)| !key.is_empty() && !value.is_empty());
            let (key, value) = pair.ok_or_else(|| ParamsError::Pair { part: part.into() })?;
            // One key may be both.
            let sticky = (self.resolve_sticky_key.as_deref() == Some(key)).then_some(&mut values.sticky);
            let host = self
                .keys
                .iter()
                .zip(&mut values.host)
                .find(|(own, _)| &*own.name == key);
            let mut known = false;
            for slot in sticky.into_iter().chain(host.map(|(_, slot)| slot)) {
                known = true;
                if slot.replace(value).is_some() && self.reject_duplicate_keys {
                    return Err(ParamsError::Duplicate { key: key.into() });
                }
            }
            if !known && self.reject_unknown_keys {
                return Err(ParamsError::Unknown { key: key.into() });
            }
        }
        Ok(values)
    }

    fn check_hierarchy(&self, values: &Values<'_>) -> Result<(), ParamsError> {
        let mut missing = None;
        let in_order = self.keys.iter().zip(&values.host).filter(|(key, _)| !key.floats);
        for (key, value) in in_order.take_while(|_| self.require_hierarchy) {
            match (value, missing) {
                (None, None) => missing = Some(&key.name),
                (Some(_), Some(missing)) => {
                    return Err(ParamsError::Hierarchy {
                        key: key.name.clone(),
                        missing: missing.clone(),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn host(&self, parts: &[&str]) -> Result<Host, ParamsError> {
        let name = parts.join(&self.separator) + &self.domain_suffix;
        let host = Host::parse(&name).map_err(|source| ParamsError::Host {
            name: name.into(),
            source,
        })?;
        // RFC 6761 §6.3: these are looked up nowhere.
        let is_local = host
            .domain()
            .is_some_and(|name| name == "localhost" || name.ends_with(".localhost"));
        Ok(if is_local {
            Host::Ip([127, 0, 0, 1].into())
        } else {
            host
        })
    }
}

/// The values of the keys that are known.
struct Values<'l> {
    /// One for each key of the host.
    host: Vec<Option<&'l str>>,
    sticky: Option<&'l str>,
}
