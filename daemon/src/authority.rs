//! Who may say who belongs to the group: the root key, the issuing keys it certifies, and the
//! check of everything they signed.
//!
//! The root exists in memory only while a group is made or its recovery kit is open. Which of the
//! verified rows counts is decided in [`crate::membership`]; where they are kept, elsewhere.

use mfpsync_backup::manifest::Manifest;
use mfpsync_replication::message::Claim;
use mfpsync_storage::codec::DecodeError;
use mfpsync_storage::model::{
    DeviceId, GroupId, IssuingCertificate, Member, Promotion, PublicKey, SIGNATURE_BYTES, Signed,
};
use ring::rand::SecureRandom;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::keystore::KeyStore;
use crate::signing::{KeyError, KeyPair, SEED_BYTES, verifies};

/// Name of the entry in the key store.
const ENTRY: &str = "issuing";

/// Why a signed record is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// Not such a record.
    #[error("malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// It speaks of another group.
    #[error("belongs to another group, {0}")]
    WrongGroup(GroupId),
    /// No certified issuing key of the device that is said to have signed it.
    #[error("signed by device {0}, which has no issuing certificate")]
    UnknownIssuer(DeviceId),
    /// The signature is not that of the expected key over these bytes.
    #[error("bad signature")]
    BadSignature,
}

/// What a device believes after pairing: the group and its root key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustAnchor {
    /// The group.
    pub group: GroupId,
    /// The public half of its root key.
    pub root: PublicKey,
}

impl TrustAnchor {
    /// Verifies a certificate of an issuing key.
    ///
    /// # Errors
    /// Malformed, of another group, or not signed by the root.
    pub fn verify_issuer(&self, bytes: &[u8]) -> Result<Signed<IssuingCertificate>, VerifyError> {
        let signed = IssuingCertificate::decode(bytes)?;
        self.same_group(signed.record.group)?;
        if !verifies(&self.root, &signed.body, &signed.signature) {
            return Err(VerifyError::BadSignature);
        }
        Ok(signed)
    }

    /// Verifies a membership row against already verified `issuers`.
    ///
    /// # Errors
    /// Any of [`VerifyError`].
    pub fn verify_member(
        &self,
        bytes: &[u8],
        issuers: &[Signed<IssuingCertificate>],
    ) -> Result<Signed<Member>, VerifyError> {
        let signed = Member::decode(bytes)?;
        self.same_group(signed.record.group)?;
        self.issued(signed.record.issuer, &signed.body, &signed.signature, issuers)?;
        Ok(signed)
    }

    /// Verifies a promotion record, which the device that begins to reign signs itself.
    ///
    /// # Errors
    /// Any of [`VerifyError`].
    pub fn verify_promotion(
        &self,
        bytes: &[u8],
        issuers: &[Signed<IssuingCertificate>],
    ) -> Result<Signed<Promotion>, VerifyError> {
        let signed = Promotion::decode(bytes)?;
        self.same_group(signed.record.group)?;
        self.issued(signed.record.device, &signed.body, &signed.signature, issuers)?;
        Ok(signed)
    }

    /// Verifies the claim of a reign, by what it brings along and by already verified `issuers`.
    ///
    /// # Errors
    /// Any of [`VerifyError`].
    pub fn verify_claim(
        &self,
        claim: &Claim,
        issuers: &[Signed<IssuingCertificate>],
    ) -> Result<(), VerifyError> {
        let device = claim.promotion.record.device;
        let others = claim.issuer.as_ref().map(|issuer| issuer.record.device);
        let others = others.into_iter().chain(claim.member.as_ref().map(|member| member.record.device));
        if let Some(other) = others.into_iter().find(|other| *other != device) {
            return Err(VerifyError::UnknownIssuer(other));
        }
        let mut issuers = issuers.to_vec();
        if let Some(issuer) = &claim.issuer {
            issuers.push(self.verify_issuer(&issuer.encode())?);
        }
        self.verify_promotion(&claim.promotion.encode(), &issuers)?;
        claim.member.iter().try_for_each(|row| self.verify_member(&row.encode(), &issuers).map(drop))
    }

    fn same_group(&self, found: GroupId) -> Result<(), VerifyError> {
        if found == self.group { Ok(()) } else { Err(VerifyError::WrongGroup(found)) }
    }

    fn issued(
        &self,
        by: DeviceId,
        body: &[u8],
        signature: &[u8; SIGNATURE_BYTES],
        issuers: &[Signed<IssuingCertificate>],
    ) -> Result<(), VerifyError> {
        // A device may have had several issuing keys, as when its storage was replaced.
        let mut known = false;
        for issuer in issuers.iter().map(|signed| &signed.record) {
            if issuer.device == by && issuer.group == self.group {
                known = true;
                if verifies(&issuer.public_key, body, signature) {
                    return Ok(());
                }
            }
        }
        Err(if known { VerifyError::BadSignature } else { VerifyError::UnknownIssuer(by) })
    }
}

/// The group's root key. It is dropped, and so wiped, once the recovery kit is written.
#[derive(Debug)]
pub struct Root {
    group: GroupId,
    key: KeyPair,
}

impl Root {
    /// Makes a new group: its id and its root key.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate(random: &dyn SecureRandom) -> Result<Self, KeyError> {
        let mut id = [0; 16];
        random.fill(&mut id).map_err(|_| KeyError::Random)?;
        Ok(Self { group: GroupId(id), key: KeyPair::generate(random)? })
    }

    pub(crate) fn from_seed(group: GroupId, seed: Zeroizing<[u8; SEED_BYTES]>) -> Result<Self, KeyError> {
        Ok(Self { group, key: KeyPair::from_seed(seed)? })
    }

    pub(crate) fn seed(&self) -> &[u8; SEED_BYTES] {
        self.key.seed()
    }

    /// What the group's devices believe.
    #[must_use]
    pub fn anchor(&self) -> TrustAnchor {
        TrustAnchor { group: self.group, root: self.key.public_key() }
    }

    /// States that the issuing key of a device may sign membership rows and promotions of this group.
    #[must_use]
    pub fn certify(&self, device: DeviceId, public_key: PublicKey) -> Signed<IssuingCertificate> {
        let record = IssuingCertificate { group: self.group, device, public_key };
        let body = record.body();
        Signed { signature: self.key.sign(&body), record, body }
    }
}

/// The key with which a `serve` device signs membership rows and promotions.
#[derive(Debug)]
pub struct IssuingKey {
    device: DeviceId,
    key: KeyPair,
}

impl IssuingKey {
    /// The stored key of this `device`, if it has one.
    ///
    /// # Errors
    /// The store fails or holds something else.
    pub fn load(store: &dyn KeyStore, device: DeviceId) -> Result<Option<Self>, KeyError> {
        let Some(bytes) = store.load(ENTRY)? else { return Ok(None) };
        let seed = bytes.as_slice().try_into().map_err(|_| KeyError::Damaged)?;
        Ok(Some(Self { device, key: KeyPair::from_seed(Zeroizing::new(seed))? }))
    }

    /// The stored key of this `device`; a new one, stored before it is used, if it has none.
    ///
    /// # Errors
    /// The store fails or holds something else.
    pub fn load_or_create(
        store: &dyn KeyStore,
        device: DeviceId,
        random: &dyn SecureRandom,
    ) -> Result<Self, KeyError> {
        if let Some(kept) = Self::load(store, device)? {
            return Ok(kept);
        }
        let key = KeyPair::generate(random)?;
        store.store(ENTRY, key.seed())?;
        Ok(Self { device, key })
    }

    /// Forgets the stored key, as when the device leaves its group.
    ///
    /// # Errors
    /// The store fails.
    pub fn erase(store: &dyn KeyStore) -> Result<(), KeyError> {
        Ok(store.erase(ENTRY)?)
    }

    /// Whose key it is.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The public half, as the root certifies it.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    /// Signs a membership row, naming this device as its issuer.
    #[must_use]
    pub fn sign_member(&self, mut member: Member) -> Signed<Member> {
        member.issuer = self.device;
        let body = member.body();
        Signed { signature: self.key.sign(&body), record: member, body }
    }

    /// Signs the beginning of this device's own reign.
    #[must_use]
    pub fn sign_promotion(&self, mut promotion: Promotion) -> Signed<Promotion> {
        promotion.device = self.device;
        let body = promotion.body();
        Signed { signature: self.key.sign(&body), record: promotion, body }
    }

    /// Signs the description of an archive that this device made.
    #[must_use]
    pub fn sign_manifest(&self, manifest: Manifest) -> Signed<Manifest> {
        manifest.sign(|body| self.key.sign(body))
    }
}

#[cfg(test)]
mod tests;
