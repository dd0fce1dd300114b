// The page's token, for as long as its tab is open.

export const TOKEN = "emp-token";

export const authorization = () => {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
};
