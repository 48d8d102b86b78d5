//! Tickets as rustls wants them: the whole of it is made here.

use std::sync::Arc;
use std::time::Instant;

use openssl::rand::rand_bytes;
use openssl::symm::{Cipher, decrypt, encrypt};
use ring::hmac;
use rustls::server::ProducesTickets;

use super::{IV, Key, MAC, NAME, Ticketer};

#[derive(Debug)]
pub(crate) struct RustlsTickets(pub(crate) Arc<Ticketer>);

/// The MAC of a ticket's parts; here, unlike with OpenSSL, the sealed text's length is under it, too.
fn mac(key: &Key, name_and_iv: &[u8], sealed: &[u8]) -> hmac::Context {
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key.hmac));
    mac.update(name_and_iv);
    mac.update(&(sealed.len() as u64).to_be_bytes());
    mac.update(sealed);
    mac
}

impl ProducesTickets for RustlsTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime_hint()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.0.sealing(Instant::now());
        let mut iv = [0; IV];
        rand_bytes(&mut iv).ok()?;
        let sealed = encrypt(Cipher::aes_256_cbc(), &key.aes, Some(&iv), plain).ok()?;
        let mut ticket = Vec::with_capacity(NAME + IV + sealed.len() + MAC);
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(&iv);
        let tag = mac(&key, &ticket, &sealed).sign();
        ticket.extend_from_slice(&sealed);
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name_and_iv, rest) = ticket.split_at_checked(NAME + IV)?;
        let (name, iv) = name_and_iv.split_at_checked(NAME)?;
        let (sealed, tag) = rest.split_at_checked(rest.len().checked_sub(MAC)?)?;
        let key = self.0.opening(name, Instant::now())?;
        // The MAC is checked first, in constant time: what CBC's padding would tell is then nobody's choice.
        let expected = mac(&key, name_and_iv, sealed).sign();
        if !openssl::memcmp::eq(expected.as_ref(), tag) {
            return None;
        }
        decrypt(Cipher::aes_256_cbc(), &key.aes, Some(iv), sealed).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TicketerConfig;

    fn tickets() -> RustlsTickets {
        RustlsTickets(Ticketer::new(&TicketerConfig::default()).unwrap())
    }

    #[test]
    fn a_ticket_opens_where_it_was_sealed_only() {
        let tickets_a = tickets();
        let ticket = tickets_a.encrypt(b"state").unwrap();
        assert_eq!(tickets_a.decrypt(&ticket).as_deref(), Some(&b"state"[..]));
        assert_eq!(tickets().decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_with_any_bit_changed_or_any_byte_missing_is_none() {
        let tickets = tickets();
        let ticket = tickets.encrypt(b"state").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "the first {at} bytes");
        }
    }
}
