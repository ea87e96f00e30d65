//! How a row of the ledger is written.

use std::net::IpAddr;

use redb::Table;
use serde::Serialize;
use serde::de::DeserializeOwned;
use weft_api::id::NetworkId;

pub(super) fn put<T: Serialize>(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    key: &[u8],
    value: &T,
) -> Result<(), redb::Error> {
    table.insert(key, encode(value)?.as_slice())?;
    Ok(())
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, redb::Error> {
    postcard::to_allocvec(value).map_err(|_| bad("a row"))
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    postcard::from_bytes(bytes).map_err(|_| bad("a row"))
}

pub(super) fn bad(what: &str) -> redb::Error {
    redb::Error::Corrupted(format!("{what} in it cannot be read"))
}

pub(super) fn encode_address(network: NetworkId, address: IpAddr) -> Vec<u8> {
    let mut key = network.0.to_be_bytes().to_vec();
    match address {
        IpAddr::V4(v4) => key.extend(v4.octets()),
        IpAddr::V6(v6) => key.extend(v6.octets()),
    }
    key
}

pub(super) fn decode_address(key: &[u8]) -> Option<(NetworkId, IpAddr)> {
    let (network, address) = key.split_first_chunk::<4>()?;
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
    };
    Some((NetworkId(u32::from_be_bytes(*network)), address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn addresses_go_round(network: u32, address: IpAddr) {
            let key = encode_address(NetworkId(network), address);
            prop_assert_eq!(decode_address(&key), Some((NetworkId(network), address)));
        }

        #[test]
        fn any_key_is_read_without_panic(key in prop::collection::vec(any::<u8>(), 0..32)) {
            if let Some((network, address)) = decode_address(&key) {
                prop_assert_eq!(encode_address(network, address), key);
            }
        }
    }
}
