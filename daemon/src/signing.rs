//! Ed25519 key pairs whose seed can be kept: what a device, an issuing key and the group's root
//! have in common.
//!
//! What is signed with them, and who is believed, is decided by the callers.

use mfpsync_storage::model::{PublicKey, SIGNATURE_BYTES};
use ring::rand::SecureRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::keystore::KeyStoreError;

/// Length of a seed, from which the whole key pair follows.
pub const SEED_BYTES: usize = 32;

/// Why there is no key pair.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The store behind it.
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    /// The operating system gave no random bytes.
    #[error("no random numbers from the operating system")]
    Random,
    /// What the store holds is not a key of this product.
    #[error("stored key is damaged")]
    Damaged,
}

/// An Ed25519 key pair; shows only its public half.
pub struct KeyPair {
    seed: Zeroizing<[u8; SEED_BYTES]>,
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl KeyPair {
    /// Makes a new one.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate(random: &dyn SecureRandom) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        random.fill(seed.as_mut_slice()).map_err(|_| KeyError::Random)?;
        Self::from_seed(seed)
    }

    /// The key pair of a kept seed.
    ///
    /// # Errors
    /// [`KeyError::Damaged`].
    pub fn from_seed(seed: Zeroizing<[u8; SEED_BYTES]>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(|_| KeyError::Damaged)?;
        let public = PublicKey::from_slice(pair.public_key().as_ref()).ok_or(KeyError::Damaged)?;
        Ok(Self { seed, pair, public })
    }

    /// The seed, to be kept where nobody else reads.
    #[must_use]
    pub fn seed(&self) -> &[u8; SEED_BYTES] {
        &self.seed
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn public_key_bytes(&self) -> &[u8] {
        &self.public.0
    }

    /// Ed25519 over `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        // Ed25519 signatures always have this length; ring's type only says "bytes".
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Whether `signature` over `message` was made with the private half of `key`.
#[must_use]
pub fn verifies(key: &PublicKey, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_key_again_and_debug_hides_it() {
        let one = KeyPair::generate(&SystemRandom::new()).unwrap();
        let again = KeyPair::from_seed(Zeroizing::new(*one.seed())).unwrap();
        assert_eq!(one.public_key(), again.public_key());
        assert!(verifies(&one.public_key(), b"text", &again.sign(b"text")));
        assert!(!verifies(&one.public_key(), b"other", &again.sign(b"text")));
        assert!(!format!("{one:?}").contains(&format!("{:?}", one.seed())));
    }
}
