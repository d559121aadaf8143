-- letter_wording: what letters about cases can state, and the templates that come with the extension: plain
-- English after the NHS content guide, which test/static/letters measures.

INSERT INTO letter_kind (kind, about, required, description) VALUES
    ('acknowledgement', 'case', '{reference,guardian_call,missing}',
     'a request has come: what is still missing, and the offer of a call with the Caldicott Guardian'),
    ('missing_proof', 'case', '{reference,missing}', 'a proof is still missing'),
    ('completion', 'case', '{reference,excluded_on,carried_out_on,guardian_call,regulator}',
     'an opt-out was carried out'),
    ('refusal', 'case', '{reference,reason,regulator}',
     'a request was refused: why, and the right to complain and to go to court'),
    ('withdrawal', 'case', '{reference,regulator}', 'a request was withdrawn, or closed because proofs never came'),
    ('opt_in', 'case', '{reference,opted_in_on,regulator}', 'a patient was opted in again'),
    ('hold', 'case', '{reference,regulator}', 'what was asked for cannot be finished while a hold is there'),
    ('extension', 'case', '{reference,extension_reason,due_on,regulator}', 'more time is needed, and why');

INSERT INTO letter_fact (about, fact, description) VALUES
    ('case', 'reference', 'the reference of the case: opt-out case 1'),
    ('case', 'today', 'the day on which the letter is written'),
    ('case', 'self', 'the patient asks in person'),
    ('case', 'parent', 'a parent asks'),
    ('case', 'representative', 'a representative asks'),
    ('case', 'whom', 'you, your child, or the person you act for'),
    ('case', 'whose', 'your, your child''s, or their'),
    ('case', 'registers', 'the names of the registers: the National Cancer Register'),
    ('case', 'these', 'this register, or these registers'),
    ('case', 'received_on', 'the day on which the request came'),
    ('case', 'complete_on', 'the day on which all proofs were there'),
    ('case', 'due_on', 'the day by which the request is to be answered'),
    ('case', 'missing', 'what is still to be proved: identity, address and authority'),
    ('case', 'missing_identity', 'a proof of identity is missing'),
    ('case', 'missing_address', 'a proof of address is missing'),
    ('case', 'missing_authority', 'a proof of the authority to act for the patient is missing'),
    ('case', 'guardian_call', 'a call with the Caldicott Guardian is open: neither declined nor held yet'),
    ('case', 'excluded_on', 'the day since which the patient is on the exclusion list of all registers'),
    ('case', 'carried_out_on', 'the day on which a search found nothing left'),
    ('case', 'deleted', 'lines: how many entries were deleted from which register'),
    ('case', 'deleted_none', 'nothing was held'),
    ('case', 'redacted', 'how many entries were kept that another person shares: 2 entries'),
    ('case', 'unlinked', 'how many entries were kept that referred to a deleted one: 2 entries'),
    ('case', 'shared', 'how many entries were kept that others refer to as well: 2 entries'),
    ('case', 'kept', 'how many entries were kept for other registers: 2 entries'),
    ('case', 'kept_registers', 'the other registers that some tables serve'),
    ('case', 'recipients', 'lines: who was given data under the NHS number, and what came of asking to delete it'),
    ('case', 'recipients_none', 'no recipient on record still holds data under the NHS number'),
    ('case', 'not_told', 'data was released for care, or to care providers, who were not told'),
    ('case', 'proofs_destroyed', 'how many proofs were destroyed: 2 documents'),
    ('case', 'copy', 'what a copy is kept of: form and letters'),
    ('case', 'copy_until', 'the day until which that copy is kept'),
    ('case', 'held', 'the case is held'),
    ('case', 'reason', 'why the request was refused'),
    ('case', 'expired', 'the case was closed because proofs never came'),
    ('case', 'extension_reason', 'why more time is needed'),
    ('case', 'opted_in_on', 'the day on which the patient was taken off the exclusion list'),
    ('case', 'contact', 'how to reach the registry, as the policy says it'),
    ('case', 'regulator', 'how to reach the Information Commissioner''s Office');

INSERT INTO letter_template (kind, version, body) VALUES
('acknowledgement', 0, $letter$Our reference: {reference}

{?self}To the applicant
{?parent}To the applicant, as the parent of the child
{?representative}To the applicant, as the representative of the patient

# We have your request

You asked us on {received_on} to remove {whom} from {registers}. Thank you.

# What we need from you
{?missing}We cannot start until we have seen these. Please send us a copy of each:
{?missing_identity}- a passport or a driving licence
{?missing_address}- a gas, water or power bill, or a bank statement, with your address on it
{?missing_authority}- a paper that shows that you may act for someone else, such as a power of attorney or a court order
{?missing}We destroy these copies when the case ends.
{!missing}We have all that we need. You will hear from us by {due_on}.

# What happens next
We will put a coded form of {whose} NHS number on our exclusion list. It keeps out new data for {these}.
Then we will delete what we hold about {whom} in {these}. We will write to you when this is done.

{?guardian_call}# You can talk to us first
{?guardian_call}You can have a call with our Caldicott Guardian, who looks after the privacy of patients.
{?guardian_call}Just tell us if you would like one. You do not have to.

# What this does not change
Care from hospitals and GPs does not change. We do not tell them about your request.
This is not the national data opt-out. You can find out more at www.nhs.uk/your-nhs-data-matters.

# Any questions
You can stop this at any time before we delete the data. Just tell us.
{?contact}Contact us {contact}.
{!contact}Write to us as you did before.$letter$),
('missing_proof', 0, $letter$Our reference: {reference}

{?self}To the applicant
{?parent}To the applicant, as the parent of the child
{?representative}To the applicant, as the representative of the patient

# We still need something from you

You asked us on {received_on} to remove {whom} from {registers}.
We cannot start yet. Please send us a copy of:
{?missing_identity}- a passport or a driving licence
{?missing_address}- a gas, water or power bill, or a bank statement, with your address on it
{?missing_authority}- a paper that shows that you may act for someone else, such as a power of attorney or a court order
We need this to prove: {missing}.
We destroy these copies when the case ends.

# If we do not hear from you
We will close the case after some time, and delete nothing. You can ask us again at any time.

# Any questions
{?contact}Contact us {contact}.
{!contact}Write to us as you did before.$letter$),
('completion', 0, $letter$Our reference: {reference}

{?self}To the applicant
{?parent}To the applicant, as the parent of the child
{?representative}To the applicant, as the representative of the patient

# We have removed {whom} from {registers}

You asked us to do this on {received_on}. We had all that we needed from you on {complete_on}.
We finished on {carried_out_on}.

# What we did
{?deleted}We deleted what we held about {whom}:
{deleted}

{?deleted_none}We held no data about {whom} in {these}.
We kept {redacted} that another person shares. We took out {whose} NHS number and what was stored with it.
We kept {unlinked} that pointed to a deleted one. We took out the link.
We kept {shared} that other records use as well, such as an address.
Some of our tables also serve {kept_registers}, which you did not ask to leave.
We kept {kept} there. New ones can still come in.
{?kept_registers}{!kept}We found nothing about {whom} there. New data can still come in.

We then searched every table that we know can hold such data.
{!kept}{!shared}We found nothing left.
{?kept}We found nothing else.
{!kept}{?shared}We found nothing else.

On {excluded_on} we put a coded form of {whose} NHS number on our exclusion list.
If new data for {these} arrives with that number, we do not add it.

We destroyed our copies of what you sent us to show who you are: {proofs_destroyed}.

# Other organisations
{?recipients}We had shared data about {whom}. This is what we know of it:
{recipients}

{?recipients_none}We looked for {whose} NHS number in our records of data that we have shared.
{?recipients_none}{!not_told}By these records, no organisation still holds data under that number.
{?recipients_none}{?not_told}By these records, only care providers still hold data under that number.

{?not_told}We have shared such data with care providers. As we promise, we did not tell them about this.

# What we keep
We keep the coded number and the dates of your request for good. We need them to keep new data out.
{?copy_until}We keep a locked copy of the {copy} until {copy_until}, and then destroy it.
{?copy_until}Only our Caldicott Guardian can open it.
{?copy_until}{?held}We may have to keep it for longer, for a complaint or a court.

# What this does not change
Care from hospitals and GPs does not change. They keep their own records.
Backup copies may hold the data until they are too old and we delete them.
We cannot spot data that comes to us without the NHS number, or with a wrong one.
This is not the national data opt-out. You can find out more at www.nhs.uk/your-nhs-data-matters.

# What this can mean later
If we write to people on {these} one day, we cannot write to {whom}.
If a relative asks about an illness in the family, we have no records to help with.

# If you change your mind
Write to us at any time. We will then add new data that comes in. We cannot bring back what we deleted.

# If you are not happy with what we did
{?contact}Contact us {contact}.
{!contact}Write to us as you did before.
{?guardian_call}You can also have a call with our Caldicott Guardian, who looks after the privacy of patients.
You can also complain to the Information Commissioner's Office: {regulator}.$letter$),
('refusal', 0, $letter$Our reference: {reference}

{?self}To the applicant
{?parent}To the applicant, as the parent of the child
{?representative}To the applicant, as the representative of the patient

# We cannot do what you asked

You asked us on {received_on} to remove {whom} from {registers}. We have not done this.

The reason is: {reason}.

# What this means
For this request, we have deleted nothing, and put no NHS number on our exclusion list.
We destroyed our copies of what you sent us to show who you are: {proofs_destroyed}.
{?copy_until}We keep a locked copy of the {copy} until {copy_until}, and then destroy it.
{?copy_until}Only our Caldicott Guardian can open it.
You can ask us again at any time.

# If you do not agree
Tell us, and we will look at it again.
{?contact}Contact us {contact}.
{!contact}Write to us as you did before.
{?guardian_call}You can also have a call with our Caldicott Guardian, who looks after the privacy of patients.
You can complain to the Information Commissioner's Office: {regulator}.
You can also ask a court to decide.$letter$),
('withdrawal', 0, $letter$Our reference: {reference}

{?self}To the applicant
{?parent}To the applicant, as the parent of the child
{?representative}To the applicant, as the representative of the patient

# We have closed your request

You asked us on {received_on} to remove {whom} from {registers}.
{!expired}You then told us that you do not want this any more.
{?expired}We did not get all that we need from you, so we closed it.

# What this means
For this request, we have deleted nothing, and put no NHS number on our exclusion list.
We destroyed our copies of what you sent us to show who you are: {proofs_destroyed}.
{?copy_until}We keep a locked copy of the {copy} until {copy_until}, and then destroy it.
{?copy_until}Only our Caldicott Guardian can open it.
You can ask us again at any time.

# If this is wrong
{?contact}Contact us {contact}.
{!contact}Write to us as you did before.
You can also complain to the Information Commissioner's Office: {regulator}.$letter$),
('opt_in', 0, $letter$Our reference: {reference}

{?self}To the applicant
{?parent}To the applicant, as the parent of the child
{?representative}To the applicant, as the representative of the patient

# New data can come in again

You asked us on {received_on} to put {whom} back on {registers}.

# What we did
On {opted_in_on} we took {whose} coded NHS number off the exclusion list for {these}.
New data that comes in from then on is added again. We cannot bring back what we deleted.

# What we keep
{?copy_until}We keep a locked copy of the {copy} until {copy_until}, and then destroy it.
{?copy_until}Only our Caldicott Guardian can open it.
We keep the dates of your requests for good.

# If you change your mind
You can opt out again at any time. Write to us as you did before.

# If you are not happy with what we did
{?contact}Contact us {contact}.
{!contact}Write to us as you did before.
You can also complain to the Information Commissioner's Office: {regulator}.$letter$),
('hold', 0, $letter$Our reference: {reference}

{?self}To the applicant
{?parent}To the applicant, as the parent of the child
{?representative}To the applicant, as the representative of the patient

# We have to wait before we can finish

{!opted_in_on}You asked us on {received_on} to remove {whom} from {registers}.
{?opted_in_on}You asked us on {received_on} to put {whom} back on {registers}.
We must not delete or destroy anything for now, because of a complaint, a court or an inquiry.

# What we have done
{?opted_in_on}On {opted_in_on} we took {whose} coded NHS number off the exclusion list for {these}.
{?excluded_on}On {excluded_on} we put a coded form of {whose} NHS number on our exclusion list.
{?excluded_on}If new data for {these} arrives with that number, we do not add it.
{!opted_in_on}{!excluded_on}For this request, nothing is on our exclusion list yet.
{!opted_in_on}{!excluded_on}You will hear from us when that changes.
{!opted_in_on}{!carried_out_on}We have not deleted what we hold about {whom}.
{?carried_out_on}We had deleted what we held about {whom} in {these} before we had to wait.

# What happens next
We will finish when we no longer have to wait. Then we will write to you again.

# If you are not happy with this
{?contact}Contact us {contact}.
{!contact}Write to us as you did before.
You can also complain to the Information Commissioner's Office: {regulator}.$letter$),
('extension', 0, $letter$Our reference: {reference}

{?self}To the applicant
{?parent}To the applicant, as the parent of the child
{?representative}To the applicant, as the representative of the patient

# We need more time

{!opted_in_on}You asked us on {received_on} to remove {whom} from {registers}.
{?opted_in_on}You asked us on {received_on} to put {whom} back on {registers}.
We are sorry that we need more time for it.

The reason is: {extension_reason}.

You will hear from us by {due_on}.

# If you are not happy with this
{?contact}Contact us {contact}.
{!contact}Write to us as you did before.
You can also complain to the Information Commissioner's Office: {regulator}.
You can also ask a court to decide.$letter$);
