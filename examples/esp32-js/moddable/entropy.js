export default function entropy(length) @ "xs_entropy";
