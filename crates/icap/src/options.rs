//! What a service offers, by its answer to OPTIONS (RFC 3507 §4.10.2).

use std::time::Duration;

use crate::encapsulated::BodyPart;
use crate::request::Method;
use crate::response::Response;

/// What a service offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// It may answer 204 outside of a preview.
    pub allow_204: bool,
    /// Bytes of a body that it wants to see first.
    pub preview: Option<u32>,
    /// How long all this holds; `None` is for ever.
    pub ttl: Option<Duration>,
    /// Connections that it wants from one client at most.
    pub max_connections: Option<u32>,
}

impl Options {
    /// Reads an answer to OPTIONS for a service that is to be used with `method`.
    ///
    /// The fields may come in any order.
    ///
    /// # Errors
    /// [`OptionsError`]: the service cannot be used.
    pub fn read(response: &Response<'_>, method: Method) -> Result<Self, OptionsError> {
        if !(200..300).contains(&response.status) {
            return Err(OptionsError::Status(response.status));
        }
        if let Some(parts) = response.encapsulated
            && (parts.heads() > 0 || !matches!(parts.body, BodyPart::None | BodyPart::Options))
        {
            return Err(OptionsError::Parts);
        }
        let mut options = Self::default();
        let (mut tagged, mut methods, mut listed) = (false, false, false);
        for field in response.fields() {
            if field.is("istag") {
                tagged |= !field.value.is_empty() && field.value != b"\"\"";
            } else if field.is("methods") {
                methods = true;
                listed |= field.list().any(|known| known == method.as_str().as_bytes());
            } else if field.is("allow") {
                options.allow_204 |= field.list().any(|code| code == b"204");
            } else if field.is("preview") {
                options.preview = Some(field.number().ok_or(OptionsError::Preview)?);
            } else if field.is("options-ttl") {
                let seconds = field.number().ok_or(OptionsError::Ttl)?;
                options.ttl = Some(Duration::from_secs(seconds.into()));
            } else if field.is("max-connections") {
                // Advice only: what cannot be read is no advice.
                options.max_connections = field.number();
            } else if field.is("opt-body-type") {
                return Err(OptionsError::OptBodyType);
            }
        }
        match (tagged, methods, listed) {
            (false, ..) => Err(OptionsError::IsTag),
            (_, false, _) => Err(OptionsError::NoMethods),
            (.., false) => Err(OptionsError::Method(method)),
            _ => Ok(options),
        }
    }
}

/// Why a service cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// No `ISTag`, or an empty one.
    #[error("the service gives no ISTag")]
    IsTag,
    /// `Methods` does not list the method.
    #[error("the service does not do {0}")]
    Method(Method),
    /// No `Methods`.
    #[error("the service gives no Methods")]
    NoMethods,
    /// A body of options, of which no kind is known.
    #[error("the service sends a body of options")]
    OptBodyType,
    /// Parts that do not belong to OPTIONS.
    #[error("parts that an answer to OPTIONS does not have")]
    Parts,
    /// `Preview` is no number.
    #[error("malformed Preview field of the service")]
    Preview,
    /// Not a 2xx.
    #[error("the service answers OPTIONS with {0}")]
    Status(u16),
    /// `Options-TTL` is no number, or too large.
    #[error("malformed Options-TTL field of the service")]
    Ttl,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, parse_response};

    fn read(fields: &str) -> Result<Options, OptionsError> {
        let text = format!("ICAP/1.0 200 OK\r\n{fields}\r\n");
        let response = parse_response(text.as_bytes(), &Limits::default()).unwrap().unwrap();
        Options::read(&response, Method::Reqmod)
    }

    #[test]
    fn fields_may_come_in_any_order() {
        // IC-07
        let mut lines = [
            "Methods: RESPMOD, REQMOD\r\n",
            "ISTag: \"a\"\r\n",
            "Allow: 204\r\n",
            "Preview: 1024\r\n",
            "Options-TTL: 3600\r\n",
            "Encapsulated: null-body=0\r\n",
            "Max-Connections: 8\r\n",
        ];
        let expected = Options {
            allow_204: true,
            preview: Some(1024),
            ttl: Some(Duration::from_secs(3600)),
            max_connections: Some(8),
        };
        for _ in 0..lines.len() {
            lines.rotate_left(1);
            assert_eq!(read(&lines.concat()), Ok(expected), "{lines:?}");
        }
    }

    #[test]
    fn a_ttl_that_overflows_is_refused() {
        // IC-07
        let with = |ttl: &str| read(&format!("ISTag: x\r\nMethods: REQMOD\r\nOptions-TTL: {ttl}\r\n"));
        for ttl in ["99999999999", "-1", "1.5", ""] {
            assert_eq!(with(ttl), Err(OptionsError::Ttl), "{ttl}");
        }
        assert_eq!(with("0").map(|options| options.ttl), Ok(Some(Duration::ZERO)));
    }

    #[test]
    fn a_service_that_is_none_is_refused() {
        assert_eq!(read("Methods: REQMOD\r\n"), Err(OptionsError::IsTag));
        assert_eq!(read("ISTag: \"\"\r\nMethods: REQMOD\r\n"), Err(OptionsError::IsTag));
        assert_eq!(read("ISTag: x\r\n"), Err(OptionsError::NoMethods));
        assert_eq!(
            read("ISTag: x\r\nMethods: RESPMOD\r\n"),
            Err(OptionsError::Method(Method::Reqmod))
        );
        assert_eq!(
            read("ISTag: x\r\nMethods: reqmod\r\n"),
            Err(OptionsError::Method(Method::Reqmod))
        );
        let body = "ISTag: x\r\nMethods: REQMOD\r\nOpt-body-type: a\r\nEncapsulated: opt-body=0\r\n";
        assert_eq!(read(body), Err(OptionsError::OptBodyType));
        let parts = "ISTag: x\r\nMethods: REQMOD\r\nEncapsulated: res-hdr=0, null-body=4\r\n";
        assert_eq!(read(parts), Err(OptionsError::Parts));
    }
}
