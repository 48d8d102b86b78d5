use sluice_config::decode_text;

use super::*;

fn params(yaml: &str) -> UsernameParams {
    decode_text(yaml).unwrap()
}

type Next = (String, Option<Box<str>>);

/// The host that a login leads to, and what it sticks to.
fn next(params: &UsernameParams, login: &str) -> Result<Option<Next>, ParamsError> {
    let egress = params.egress(login, CameBy::Http)?;
    Ok(egress.map(|egress| (egress.addr.host.to_string(), egress.resolve_sticky_key)))
}

fn host(params: &UsernameParams, login: &str) -> Result<Option<String>, ParamsError> {
    Ok(next(params, login)?.map(|(host, _)| host))
}

const PLACES: &str = "{keys: [country, city, pool], floating: pool, suffix: exit.example}";

#[test]
fn values_make_the_host_in_the_order_of_the_keys_au_11() {
    let params = params(PLACES);
    for (login, expected) in [
        ("user", None),
        ("", None),
        ("user+country=cn", Some("cn.exit.example")),
        ("user+country=cn+city=bj", Some("cn-bj.exit.example")),
        ("user+city=bj+country=cn", Some("cn-bj.exit.example")),
        ("user+pool=p1", Some("p1.exit.example")),
        ("user+pool=p1+country=cn", Some("cn-p1.exit.example")),
        ("+country=CN", Some("cn.exit.example")),
        // Cut at the borders alone: a value may look like a key.
        ("user+country=city", Some("city.exit.example")),
        ("user-country-cn", None),
        ("country=cn", None),
    ] {
        assert_eq!(host(&params, login), Ok(expected.map(str::to_owned)), "{login}");
    }
}

#[test]
fn what_is_not_as_the_server_wants_it_is_refused_au_11() {
    let params = params(PLACES);
    let pair = |part: &str| ParamsError::Pair { part: part.into() };
    for (login, error) in [
        ("user+", pair("")),
        ("user+country", pair("country")),
        ("user+country=", pair("country=")),
        ("user+=cn", pair("=cn")),
        ("user++country=cn", pair("")),
        ("user+country=cn+", pair("")),
        ("user+planet=earth", ParamsError::Unknown { key: "planet".into() }),
        ("user+Country=cn", ParamsError::Unknown { key: "Country".into() }),
        ("user+countryx=cn", ParamsError::Unknown { key: "countryx".into() }),
        (
            "user+country=cn+country=cn",
            ParamsError::Duplicate { key: "country".into() },
        ),
        (
            "user+city=bj",
            ParamsError::Hierarchy {
                key: "city".into(),
                missing: "country".into(),
            },
        ),
        (
            "user+pool=p1+city=bj",
            ParamsError::Hierarchy {
                key: "city".into(),
                missing: "country".into(),
            },
        ),
        (
            "user+country=c n",
            ParamsError::Host {
                name: "c n.exit.example".into(),
                source: ParseHostError::Invalid,
            },
        ),
        (
            "user+country=..",
            ParamsError::Host {
                name: "...exit.example".into(),
                source: ParseHostError::Invalid,
            },
        ),
    ] {
        assert_eq!(host(&params, login), Err(error), "{login}");
    }
    let long = format!("user+country={}", "a".repeat(64));
    assert!(matches!(
        host(&params, &long),
        Err(ParamsError::Host {
            source: ParseHostError::TooLong,
            ..
        })
    ));
}

#[test]
fn each_rule_can_be_turned_off() {
    let lenient = params(
        "{keys_for_host: [a, b, c], require_hierarchy: false, reject_unknown_keys: off, reject_duplicate_keys: no, \
          separator: '.'}",
    );
    for (login, expected) in [
        ("u+c=3", Some("3")),
        ("u+c=z+a=x", Some("x.z")),
        ("u+a=x+a=y", Some("y")),
        ("u+other=1+b=y", Some("y")),
        ("u+other=1", None),
    ] {
        assert_eq!(host(&lenient, login), Ok(expected.map(str::to_owned)), "{login}");
    }
    assert!(matches!(host(&lenient, "u+other"), Err(ParamsError::Pair { .. })));
}

#[test]
fn the_port_hangs_on_how_the_client_came() {
    let ports = |yaml: &str| {
        let params = params(yaml);
        [CameBy::Http, CameBy::Socks5].map(|came_by| params.egress("u+k=h", came_by).unwrap().unwrap().addr.port)
    };
    assert_eq!(ports("{keys: k}"), [10000, 10001]);
    assert_eq!(ports("{keys: k, http_port: 1, socks_port: 2}"), [1, 2]);
    assert_eq!(ports("{keys: k, socks5_port: 3}"), [10000, 3]);
}

#[test]
fn a_sticky_key_is_known_and_no_part_of_the_host() {
    let sticky = params("{keys: [country], resolve_sticky_key: session}");
    assert_eq!(
        next(&sticky, "u+session=s1+country=cn"),
        Ok(Some(("cn".to_owned(), Some("s1".into()))))
    );
    assert_eq!(next(&sticky, "u+country=cn"), Ok(Some(("cn".to_owned(), None))));
    assert_eq!(next(&sticky, "u+session=s1"), Ok(None));
    assert_eq!(
        next(&sticky, "u+session=s1+session=s2+country=cn"),
        Err(ParamsError::Duplicate { key: "session".into() })
    );
    let both = params("{keys: [country], resolve_sticky_key: country}");
    assert_eq!(
        next(&both, "u+country=cn"),
        Ok(Some(("cn".to_owned(), Some("cn".into()))))
    );
}

#[test]
fn localhost_is_an_address() {
    let plain = params("{keys: [k]}");
    for value in ["localhost", "LOCALHOST", "a.localhost", "A.LOCALHOST", "localhost."] {
        assert_eq!(
            host(&plain, &format!("u+k={value}")),
            Ok(Some("127.0.0.1".to_owned())),
            "{value}"
        );
    }
    for (value, expected) in [("notlocalhost", "notlocalhost"), ("192.0.2.1", "192.0.2.1")] {
        assert_eq!(host(&plain, &format!("u+k={value}")), Ok(Some(expected.to_owned())));
    }
    let below = params("{keys: [k], suffix: .LocalHost}");
    assert_eq!(host(&below, "u+k=a"), Ok(Some("127.0.0.1".to_owned())));
}

#[test]
fn the_user_ends_before_the_first_plus_unless_told_otherwise() {
    let stripped = params("{}");
    let whole = params("{auth_strip_suffix: false}");
    for (login, base) in [("user", "user"), ("user+a=b+c=d", "user"), ("+a=b", ""), ("", "")] {
        assert_eq!((stripped.user(login), whole.user(login)), (base, login));
    }
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    for (yaml, error) in [
        ("{keys: ''}", "keys_for_host: a key is empty"),
        ("{keys: [a, a]}", "keys_for_host: `a` is there twice"),
        (
            "{keys: [a=b]}",
            "keys_for_host: `a=b` holds a `+`, `=` or `:`, which no key can",
        ),
        (
            "{resolve_sticky_key: a+b}",
            "resolve_sticky_key: `a+b` holds a `+`, `=` or `:`, which no key can",
        ),
        (
            "{keys: a, floating: [b]}",
            "floating_keys: `b` is none of the keys in `keys_for_host`",
        ),
        ("{separator: /}", "separator: `/` cannot stand in a domain name"),
        ("{separator: '..'}", "separator: `..` cannot stand in a domain name"),
        (
            "{domain_suffix: 'a b'}",
            "domain_suffix: `a b` is no domain name: neither an IP address nor a valid domain name",
        ),
        ("{suffix: .}", "domain_suffix: `.` is no domain name: the host is empty"),
        (
            "{http_port: 0}",
            "http_port: expected a port from 1 to 65535, found `0`",
        ),
        (
            "{socks5_port: 70000}",
            "socks5_port: expected an integer from 0 to 65535, found `70000`",
        ),
        (
            "{required: [country]}",
            "required: `required` is not built yet in this version",
        ),
        ("{key: a}", "unknown key `key`"),
    ] {
        let errors = decode_text::<UsernameParams>(yaml).unwrap_err().join("; ");
        assert_eq!(errors, error, "{yaml}");
    }
    assert_eq!(params("{separator: ''}").separator.len(), 0);
}
