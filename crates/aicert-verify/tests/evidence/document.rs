//! Makes attestation documents of NitroTPM, honest and forged, with a test authority whose keys are made on the spot.

use aicert_core::tpm::PcrValues;
use aicert_verify::nitro::Expected;
use p384::ecdsa::signature::Signer as _;

use super::support::*;

/// An item in CBOR, written in its shortest form.
#[derive(Clone)]
pub enum Item {
    Number(u64),
    Negative(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Item>),
    Map(Vec<(Item, Item)>),
    /// A map of indefinite length, as AWS writes the payload.
    OpenMap(Vec<(Item, Item)>),
    Null,
    /// Bytes as they are.
    Raw(Vec<u8>),
}

pub fn text(text: &str) -> Item {
    Item::Text(text.into())
}

pub fn head(major: u8, value: u64) -> Vec<u8> {
    let major = major << 5;
    match value {
        0..24 => vec![major | value as u8],
        24..0x100 => vec![major | 24, value as u8],
        0x100..0x1_0000 => [&[major | 25][..], &(value as u16).to_be_bytes()].concat(),
        0x1_0000..0x1_0000_0000 => [&[major | 26][..], &(value as u32).to_be_bytes()].concat(),
        _ => [&[major | 27][..], &value.to_be_bytes()].concat(),
    }
}

impl Item {
    pub fn write(&self) -> Vec<u8> {
        let pairs = |map: &[(Item, Item)]| -> Vec<u8> {
            map.iter()
                .flat_map(|(key, value)| [key.write(), value.write()].concat())
                .collect()
        };
        match self {
            Self::Number(number) => head(0, *number),
            Self::Negative(number) => head(1, *number),
            Self::Bytes(bytes) => [head(2, bytes.len() as u64), bytes.clone()].concat(),
            Self::Text(text) => [head(3, text.len() as u64), text.as_bytes().to_vec()].concat(),
            Self::Array(items) => [
                head(4, items.len() as u64),
                items.iter().flat_map(Self::write).collect(),
            ]
            .concat(),
            Self::Map(map) => [head(5, map.len() as u64), pairs(map)].concat(),
            Self::OpenMap(map) => [vec![0xbf], pairs(map), vec![0xff]].concat(),
            Self::Null => vec![0xf6],
            Self::Raw(bytes) => bytes.clone(),
        }
    }
}

pub const ROOT: &str = "test.nitro";

pub fn nitro_ca(name: &str, issuer: &str) -> Cert {
    Cert {
        key: Key::P384(p384_key(name)),
        signer: Key::P384(p384_key(issuer)),
        ..Cert::ca(name, issuer)
    }
}

pub fn nitro_leaf() -> Cert {
    Cert {
        ca: false,
        from: NOW - 3,
        until: NOW + 3 * 3_600,
        ..nitro_ca("i-0123-tpm0000", "i-0123")
    }
}

/// Root first, as in the document.
pub fn bundle() -> Vec<Cert> {
    vec![
        nitro_ca(ROOT, ROOT),
        Cert {
            path_length: Some(1),
            ..nitro_ca("zonal", ROOT)
        },
        Cert {
            path_length: Some(0),
            ..nitro_ca("i-0123", "zonal")
        },
    ]
}

pub fn expected() -> Expected {
    Expected::new(anchors(&bundle()[0]), now())
}

/// Everything of a document. Starts honest; tests change fields.
pub struct Recipe {
    pub protected: Item,
    pub unprotected: Item,
    pub fields: Vec<(Item, Item)>,
    pub signer: &'static str,
    /// Makes the document from its four elements.
    pub envelope: fn([Vec<u8>; 4]) -> Vec<u8>,
}

pub fn pcrs(indexes: impl IntoIterator<Item = u64>) -> Item {
    let entry = |index| (Item::Number(index), Item::Bytes(vec![index as u8; 48]));
    Item::Map(indexes.into_iter().map(entry).collect())
}

pub fn fields() -> Vec<(Item, Item)> {
    let bundle = bundle().iter().map(|cert| Item::Bytes(cert.der())).collect();
    vec![
        (text("module_id"), text("i-0123-tpm0000")),
        (text("digest"), text("SHA384")),
        (text("timestamp"), Item::Number(NOW as u64 * 1_000 + 437)),
        (text("nitrotpm_pcrs"), pcrs(0..24)),
        (text("certificate"), Item::Bytes(nitro_leaf().der())),
        (text("cabundle"), Item::Array(bundle)),
        (text("public_key"), Item::Null),
        (text("user_data"), Item::Bytes(b"data".to_vec())),
        (text("nonce"), Item::Bytes(vec![7; 32])),
    ]
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            // ES384 is -35.
            protected: Item::Map(vec![(Item::Number(1), Item::Negative(34))]),
            unprotected: Item::Map(Vec::new()),
            fields: fields(),
            signer: "i-0123-tpm0000",
            envelope: |elements| [vec![0x84], elements.concat()].concat(),
        }
    }
}

impl Recipe {
    /// With this value in place of a field's.
    pub fn with(name: &str, value: Item) -> Self {
        let mut fields = fields();
        for (key, old) in &mut fields {
            if matches!(key, Item::Text(key) if key == name) {
                *old = value.clone();
            }
        }
        Self {
            fields,
            ..Self::default()
        }
    }

    /// This one, with another value for a field.
    pub fn setting(mut self, name: &str, value: Item) -> Self {
        for (key, old) in &mut self.fields {
            if matches!(key, Item::Text(key) if key == name) {
                *old = value.clone();
            }
        }
        self
    }

    pub fn without(name: &str) -> Self {
        let mut fields = fields();
        fields.retain(|(key, _)| !matches!(key, Item::Text(key) if key == name));
        Self {
            fields,
            ..Self::default()
        }
    }

    pub fn and(name: &str, value: Item) -> Self {
        let mut fields = fields();
        fields.push((text(name), value));
        Self {
            fields,
            ..Self::default()
        }
    }

    pub fn document(&self) -> Vec<u8> {
        self.document_with(Item::OpenMap(self.fields.clone()).write())
    }

    pub fn document_with(&self, payload: Vec<u8>) -> Vec<u8> {
        let protected = Item::Bytes(self.protected.write());
        let payload = Item::Bytes(payload);
        // Sig_structure (RFC 9052, section 4.4).
        let signed = Item::Array(vec![
            text("Signature1"),
            protected.clone(),
            Item::Bytes(Vec::new()),
            payload.clone(),
        ]);
        let signature: p384::ecdsa::Signature = p384_key(self.signer).sign(&signed.write());
        (self.envelope)([
            protected.write(),
            self.unprotected.write(),
            payload.write(),
            Item::Bytes(signature.to_bytes().to_vec()).write(),
        ])
    }
}

/// These values, as a document has them.
pub fn pcrs_of(values: &PcrValues) -> Item {
    let entry = |(pcr, value): (&aicert_core::tpm::PcrIndex, &Vec<u8>)| {
        (Item::Number(pcr.as_u8().into()), Item::Bytes(value.clone()))
    };
    Item::Map(values.0.iter().map(entry).collect())
}

/// The order of P-384 less a number of 48 bytes: the other s of a signature.
pub fn order_less(number: &[u8]) -> Vec<u8> {
    let order = hex::decode(
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    );
    let mut difference = order.unwrap();
    let mut borrow = 0;
    for (digit, less) in difference.iter_mut().zip(number).rev() {
        let value = i32::from(*digit) - i32::from(*less) - borrow;
        borrow = i32::from(value < 0);
        *digit = value.rem_euclid(256) as u8;
    }
    difference
}
