//! Rules on the `User-Agent` of a request.

use serde::Deserialize;
use sluice_config::value::AsciiStr;

use crate::{Action, RuleForm};

/// A rule on the products that a `User-Agent` names (RFC 9110 §10.1.5): what is listed is forbidden, the rest permitted.
///
/// Of several listed products the strictest action counts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "RuleForm<AsciiStr>")]
pub struct UserAgentRule {
    /// Strictest first.
    records: Vec<(Action, Box<str>)>,
    missed: Action,
}

sluice_config::schema_as!(UserAgentRule => RuleForm<AsciiStr>);

impl UserAgentRule {
    /// What the rule says about the value of the header.
    pub fn check(&self, value: &str) -> Action {
        let found = self
            .records
            .iter()
            .find(|(_, product)| names(value.as_bytes(), product.as_bytes()));
        found.map_or(self.missed, |(action, _)| *action)
    }
}

/// Whether a token of the value is the product.
fn names(value: &[u8], product: &[u8]) -> bool {
    let starts = |at: usize| at == 0 || matches!(value.get(at - 1), Some(b' ' | b'\t' | b';'));
    let ends = |at: usize| matches!(value.get(at), None | Some(b'/' | b' ' | b'\t' | b';'));
    let mut windows = value.windows(product.len().max(1)).enumerate();
    windows.any(|(at, part)| part.eq_ignore_ascii_case(product) && starts(at) && ends(at + product.len()))
}

impl From<RuleForm<AsciiStr>> for UserAgentRule {
    fn from(form: RuleForm<AsciiStr>) -> Self {
        let records = form.records.into_iter();
        let mut records: Vec<_> = records
            .map(|(action, product)| (action.unwrap_or(Action::Forbid), Box::from(&*product)))
            .collect();
        records.sort_by_key(|(action, _)| *action);
        Self {
            records,
            missed: form.default.unwrap_or(Action::Permit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::decode;

    #[test]
    fn products_match_as_tokens_in_any_case() {
        let rule: UserAgentRule = decode("[curl, MSIE]");
        for (value, action) in [
            ("curl/7.74.0", Action::Forbid),
            ("CURL", Action::Forbid),
            ("x curl y", Action::Forbid),
            ("Mozilla/4.0 (compatible; MSIE 6.0)", Action::Forbid),
            ("Mozilla/4.0 (compatible;MSIE;x)", Action::Forbid),
            ("libcurl/7.74.0", Action::Permit),
            ("curly/1", Action::Permit),
            ("(curl)", Action::Permit),
            ("", Action::Permit),
        ] {
            assert_eq!(rule.check(value), action, "{value}");
        }
    }

    #[test]
    fn the_strictest_product_decides() {
        let rule: UserAgentRule = decode("{default: forbid, permit: Mozilla, forbid_log: evil}");
        assert_eq!(rule.check("Mozilla/5.0 evil/1"), Action::ForbidLog);
        assert_eq!(rule.check("Mozilla/5.0"), Action::Permit);
        assert_eq!(rule.check("other"), Action::Forbid);
    }
}
